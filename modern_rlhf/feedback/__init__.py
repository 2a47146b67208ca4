"""Human feedback: the comparison form and ratings on disk, agreement between raters, the rating page.

Imports only the standard library; the page loads its web server when it is started.
"""
