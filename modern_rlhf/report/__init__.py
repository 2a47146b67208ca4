"""Tables, plots, the HTML page and the status text, made from the files of a run alone."""
