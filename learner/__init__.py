"""ELCRec learning online: vocabulary, encoder, intents, item statistics and the mix of them. No Kafka, no RocksDB."""
