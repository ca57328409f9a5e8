"""Reports: what people tell the administrators about a person or a message, and what becomes of it.

Only what the reporter may see can be reported; of a message that the server can read the text is kept as it
was shown, for its sender could delete it. Nobody but administrators sees a report again.
"""
