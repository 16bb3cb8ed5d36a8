"""The gate of refusal: replies that decline, ask for the picture, or are a service's phrases around no answer.

Data sets have shipped full of them: a teacher that got an empty message says so politely, and politely is how it is
trained on. Phrases are looked for outside quotation marks, since a sign in a picture may well say sorry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, around, has_any, without_quotes

VERSION = 1

_CANNOT = (
    r"(?:cannot|can't|can not|could not|couldn't|am not able to|'m not able to|am unable to|'m unable to|won't"
    r"|am not allowed to|do not have the ability to|don't have the ability to)"
)
_PICTURE = r"(?:image|picture|photo|photograph|file|attachment)s?"
_SHOWN = r"(?:provided|attached|uploaded|included|shared|supplied|sent|given)"

PHRASES = {
    "declines": (
        r"^(?:oh,? )?(?:i'm|i am|we're|we are) (?:very |so |really |truly )?sorry\b(?! to (?:see|hear))",
        r"^(?:sorry|apologies|my apologies|unfortunately)[,.!]? (?:but )?(?:i|as an?|there is no (?:image|picture))\b",
        r"\bi(?: do)? apologi[sz]e\b",
        rf"\bi ?(?:\w+ )?{_CANNOT} (?:\w+ )?(?:assist|help|comply|fulfil\w*|provide|process|generate|engage|answer"
        r"|describe|analy[sz]e|identify|complete|continue|discuss|support|give|write|create)\b",
        r"\bagainst (?:my|our|openai's|the content) (?:guidelines|polic\w+|programming)\b",
        r"\b(?:content|usage|safety) polic(?:y|ies)\b",
        r"抱歉|对不起|无法(?:提供|查看|看到)|je suis désolée?|lo siento|es tut mir leid",
    ),
    "speaks as a machine": (
        r"\bas an? (?:\w+[ -]){0,3}(?:ai\b|artificial intelligence|language model|chatbot|virtual assistant)",
        r"\bi(?:'m| am) (?:just |only )?an? (?:\w+[ -]){0,2}(?:ai|language model|chatbot)\b",
        r"\bmy (?:training data|knowledge cut-?off|programming)\b",
        r"\b(?:text-based|text-only) (?:ai|model|assistant|language)\b",
        r"作为(?:一个|一名)?(?:人工智能|AI|语言模型)",
    ),
    "cannot see the picture": (
        rf"\b(?:i|we) ?(?:\w+ )?{_CANNOT} (?:\w+ )?(?:see|view|open|access|load|display|perceive|look at|interpret)"
        rf" (?:\w+ ){{0,3}}{_PICTURE}",
        rf"\b(?:unable|not able) to (?:see|view|open|access|load|display|process|interpret) (?:\w+ ){{0,3}}{_PICTURE}",
        rf"\b(?:i|we) (?:do not|don't) (?:\w+ )?(?:see|have access to|have) (?:an?|any|the|your) {_PICTURE}\b"
        r"(?! (?:of|with|that|on|in|hang))",
        rf"\bno {_PICTURE} (?:\w+ )?(?:was|were|has been|have been|is|seems? to (?:be|have been)) (?:\w+ )?{_SHOWN}",
        rf"\b(?:have not|haven't|did not|didn't|not) (?:been )?(?:{_SHOWN}|provide|attach|upload|include|share|send)"
        rf" (?:\w+ ){{0,2}}{_PICTURE}",
        rf"(?:\bnot|n't|\bno) (?:\w+ ){{0,4}}{_PICTURE} (?:\w+ )?{_SHOWN}\b",
        rf"\b(?:please|could you|can you|kindly) (?:\w+ ){{0,2}}(?:provide|upload|share|attach|send|supply|resend)"
        rf" (?:\w+ ){{0,4}}(?:{_PICTURE}|description|details|information|context|text|question|captions?)",
        rf"\bthe {_PICTURE} (?:\w+ )?(?:did not|didn't|failed to|could not|couldn't) (?:come through|load|upload|be)",
    ),
    "answers an empty message": (
        r"\b(?:message|input|prompt|request|query|question) (?:\w+ )?(?:is|was|appears?|seems?|looks)"
        r" (?:\w+ ){0,3}(?:empty|blank|incomplete|cut off|missing)",
        r"\b(?:looks|seems|appears) (?:like|that) (?:you|your) (?:\w+ ){0,4}(?:empty|blank|cut off|without|forgot"
        r"|didn't|haven't|accidentally)",
        r"\bhow (?:can|may) i (?:help|assist) you\b",
        r"\bwhat would you like (?:me to|to know|help|to ask)\b",
        r"\bhello[!,.]? (?:how|what) (?:can|may|would)\b",
    ),
    "a service's phrase": (
        r"\b(?:i hope (?:this|that) helps|let me know if (?:you|there)|feel free to (?:ask|reach|let|share|provide)"
        r"|i(?:'d| would)(?: be)? (?:happy|glad|love) to (?:help|assist)|happy to help|i'm here to (?:help|assist)"
        r"|if you have any (?:other|more|further|additional) questions"
        r"|is there anything else (?:i|you)|would you like me to)\b",
        r"^(?:sure|certainly|of course|absolutely|great question|good question)[!,.:]? ?"
        r"(?:here(?:'s| is| are)|i(?:'d|'ll| can| will| would)|let me|below)",
        r"^here(?:'s| is| are) (?:the|a|an|your|some|one) (?:\w+ ){0,3}"
        r"(?:description|answers?|questions?|conversation|dialogue|response|summary|caption|rewrite|output)\b",
    ),
}

_ANY = {
    reason: re.compile("|".join(f"(?:{one})" for one in phrases), re.IGNORECASE | re.MULTILINE)
    for reason, phrases in PHRASES.items()
}
# What a text must have, behind a line break and in lower case, for a pattern of the sort to fit.
_SIGNS = {
    "declines": (
        *(
            "sorry",
            "apolog",
            "unfortunately",
            "cannot",
            "can't",
            "can not",
            "couldn't",
            "could not",
            "able to",
        ),
        *("won't", "ability to", "not allowed", "against ", "polic", "désol", "siento", "tut mir"),
        *("抱歉", "对不起", "无法"),
    ),
    "speaks as a machine": (
        *(
            " ai",
            "artificial",
            "language model",
            "chatbot",
            "virtual assistant",
            "my training",
            "my knowledge",
        ),
        *("my programming", "text-", "作为"),
    ),
    "cannot see the picture": (
        *(
            "n't",
            "not ",
            "cannot",
            "able to",
            "please",
            "could you",
            "can you",
            "kindly",
            "no image",
            "no picture",
        ),
        *("no photo", "no file", "no attach", "failed to", "ability to"),
    ),
    "answers an empty message": (
        *(
            "message",
            "input",
            "prompt",
            "request",
            "query",
            "question",
            "looks like",
            "looks that",
            "seems like",
        ),
        *("seems that", "appears like", "appears that", "how can i", "how may i", "would you like", "hello"),
    ),
    "a service's phrase": (
        *("hope this", "hope that", "let me know", "feel free", "happy to", "glad to", "love to", "here to"),
        *("be happy", "be glad", "any other", "any more", "any further", "any additional", "anything else"),
        *(
            "would you like",
            "\nsure",
            "\ncertainly",
            "\nof course",
            "\nabsolutely",
            "\ngreat q",
            "\ngood q",
            "\nhere",
        ),
    ),
}


def find(candidate: Candidate, settings: Settings) -> Iterator[Finding]:
    """The first phrase of each sort in each answer, and the endpoint's own word that the teacher declined."""
    if candidate.refusal:
        yield Finding("the teacher declined", candidate.refusal[:120])
    texts = [answer for _, answer in candidate.exchanges] or [candidate.reply]
    for text in texts:
        said = without_quotes(text.strip().replace("’", "'"))
        lowered = "\n" + said.lower()
        for reason, pattern in _ANY.items():
            if has_any(lowered, _SIGNS[reason]) and (match := pattern.search(said)):
                yield Finding(reason, around(said, *match.span()))
