//! The ledger of policies: ids, validation, queries, the master's store, synchronisation.
