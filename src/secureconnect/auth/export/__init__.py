"""Export: everything the server holds of a person, as one zip file with a JSON file for each room.

It is made while it is sent, page by page, so that it takes no more memory for a long life than for a short
one. What others said is not in it, nor is the content of files, which have addresses of their own.
"""
