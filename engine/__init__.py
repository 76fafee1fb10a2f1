"""The methods of entity set expansion. Imports no Ray: every file runs in one plain process."""
