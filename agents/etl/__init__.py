"""The ETL: blocks to rows."""
