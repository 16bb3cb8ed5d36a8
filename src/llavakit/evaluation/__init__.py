"""Measuring a model: questions with known answers, exact scores, their uncertainty."""
