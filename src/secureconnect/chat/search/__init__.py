"""Search: messages found by their words.

`words` says what the words of a text are, the same for messages and for questions, on both databases; the
full text index of each only finds them again. `index` keeps that index beside the sending of messages: it
follows the changes of each conversation a moment later, and takes out what was edited, deleted, or encrypted.
What it finds is looked up in the table and compared with the question before anybody is told (`search`).
"""
