//! From the outside world to rows: mapping, MQTT client, embedded MQTT broker, REST data.

pub mod sink;

pub use sink::{FileReceipt, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SinkSlot, SourceFile, TableRows};
