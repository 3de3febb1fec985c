"""TIFA: text-to-image faithfulness by question answering (Hu et al., ICCV 2023).

A VQA model answers questions about a picture; the score is the share of answers that agree with the caption. `judges`
holds the models, `writing` makes questions for new captions.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "evaluate": "evaluation",
        "load_judge": "judges.base",
        "read_questions": "questions",
        "write_questions": "questions",
        "make_questions": "writing.make_questions",
        "Question": "questions",
        "TifaResult": "scoring",
        "compare": "comparison",
        "SentenceEncoder": "sentences",
    },
)
