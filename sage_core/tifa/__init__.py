"""TIFA: text-to-image faithfulness by question answering (Hu et al., ICCV 2023).

A VQA model is asked questions about a generated image; the score is the share that it answers as the caption says.
`questions` reads and writes question files, `make_questions` writes questions for new captions, `judges` and its
neighbours run VQA models, `scoring` turns answers into scores, `agreement` compares scores with human ratings.
"""
