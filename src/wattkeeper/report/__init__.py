"""Reports: one statement, and its faces in the terminal, as HTML, CSV and JSON. Pure: frames in, text out."""
