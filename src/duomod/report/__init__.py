"""Stage 10: tables, figures and pages for people."""
