"""Can this machine run gpt-oss, and if not, what to do?"""
