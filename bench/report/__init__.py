"""Pages, tables and figures of results, made from records and the literature; never imports torch."""
