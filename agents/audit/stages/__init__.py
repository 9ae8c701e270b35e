"""Where batches stand that the warehouse's ledger does not cover yet."""
