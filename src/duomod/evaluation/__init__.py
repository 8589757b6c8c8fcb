"""Stage 9: metrics, tables of results, aggregation over seeds, significance."""
