"""What the topics say now, kept in a folder: reading the topics, applying their records, answering queries."""
