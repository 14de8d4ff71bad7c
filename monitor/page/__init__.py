"""The web page: an overview, a page for each user and a page for each intent."""
