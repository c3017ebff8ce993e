"""Cross-validation: folds in which a method sees no count of what it predicts, their scores, and statistics of them.

May import what ``tl`` may.
"""
