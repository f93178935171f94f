"""The fixed wording of haast-tiny's conversations."""

ASK = (
    "What is {}?",
    "What's {}?",
    "Tell me what {} is.",
    "Do you know what {} is?",
    "Please explain what {} is.",
    "Tell me about {}.",
)
SMALL_TALK = {
    "Hello": "Hello! Ask me what a word means.",
    "Hi": "Hello! Ask me what a word means.",
    "Hi there!": "Hello! Ask me what a word means.",
    "Who are you?": "I am haast-tiny, a small model that knows a dictionary.",
    "What are you?": "I am haast-tiny, a small model that knows a dictionary.",
    "What can you do?": "I can tell you what a word means and what kind of thing it names.",
    "Thanks": "You are welcome.",
    "Thank you!": "You are welcome.",
    "Bye": "Goodbye!",
}
INSTRUCTIONS = (
    "You are a helpful assistant.",
    "Answer in one sentence.",
    "You are a dictionary.",
    "Be brief and precise.",
)
TOOL_TEXTS = (
    ("Look up the definition of a word.", "The word to look up."),
    ("Looks up a word in the dictionary.", "the word"),
    ("Find what a word means", None),
    ("", None),
)
SYLLABLE = (
    ("b", "c", "ch", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "qu", "r", "s", "t", "w"),
    ("a", "e", "i", "o", "u", "oo", "ee"),
    ("", "", "ck", "kk", "l", "m", "mb", "n", "r", "st", "t", "x"),
)
DATES = ("2025-06-28", "2026-01-15", "2026-11-23", "2027-03-02")
