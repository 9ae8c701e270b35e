"""A step of the ETL: source messages in, one message with rows, ledger and state changes out."""
