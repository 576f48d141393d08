"""What two parties must agree on about audits: what `verification` commits to, the draw, terms that deter, decisions.

Pure: nothing here reads a file, a clock or a socket.
"""
