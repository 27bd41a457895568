"""Pages for people: what a replay found and what a program's runs covered, each as one HTML file that needs no network.

``bins``, ``curves``, ``protocols``, ``instructions``, ``map_tables`` and ``collect`` gather; ``model`` is what they hand over;
``html``, ``plot`` and the pages draw it. What is drawn may be hostile (names, bytes of maps, paths): all text is escaped in
``html``, in one place.
"""
