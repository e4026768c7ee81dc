//! A frame as it is written.

use std::sync::Arc;

use anylog_dbms::SegmentId;
use anylog_ingest::Delivery;
use anylog_ingest::frames::{HEADER_BYTES, put_bytes, put_length};

use super::{
    FORM, KIND_CAME, KIND_COPY, KIND_DELIVERED, KIND_DROPPED, KIND_FOLLOWED, KIND_FORGOTTEN, KIND_LEFT, KIND_PROMISED,
    KIND_RELEASED, KIND_ROWS, KIND_SEALED, Place, Promised, SegmentHeader, VERSION,
};

/// The entries of one frame as bytes, before the writer gives the frame its sequence.
#[derive(Debug, Default, Clone)]
pub struct Entries {
    bytes: Vec<u8>,
    segments: Vec<Arc<SegmentHeader>>,
}

impl Entries {
    /// Adds rows. `rows` are JSON texts without line ends.
    pub fn rows<S: AsRef<str>>(
        &mut self,
        segment: &Arc<SegmentHeader>,
        place: Place<'_>,
        first_ordinal: u64,
        rows: &[S],
    ) {
        let Place { partition, zone, received } = place;
        let out = &mut self.bytes;
        out.push(KIND_ROWS);
        out.extend_from_slice(&segment.id.0.to_le_bytes());
        out.extend_from_slice(&segment.file_id.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&segment.opened.as_microsecond().to_le_bytes());
        out.extend_from_slice(&received.as_microsecond().to_le_bytes());
        out.extend_from_slice(&first_ordinal.to_le_bytes());
        for text in [&segment.dbms, &segment.table, &segment.source, &segment.instructions, &segment.member] {
            put_text(out, text);
        }
        put_text(out, zone);
        put_text(out, partition.unwrap_or_default());
        put_length(out, rows.len());
        for row in rows {
            put_text(out, row.as_ref());
        }
        if !self.segments.iter().any(|known| known.id == segment.id) {
            self.segments.push(Arc::clone(segment));
        }
    }

    /// Says that a segment is done.
    pub fn sealed(&mut self, segment: SegmentId) {
        self.bytes.push(KIND_SEALED);
        self.bytes.extend_from_slice(&segment.0.to_le_bytes());
    }

    /// Says that a partition was dropped.
    pub fn dropped(&mut self, dbms: &str, table: &str, partition: &str) {
        self.bytes.push(KIND_DROPPED);
        for text in [dbms, table, partition] {
            put_text(&mut self.bytes, text);
        }
    }

    /// Says that QoS 2 packets are stored.
    pub fn delivered(&mut self, deliveries: &[Delivery]) {
        self.packets(KIND_DELIVERED, deliveries);
    }

    /// Says that QoS 2 packets were released.
    pub fn released(&mut self, deliveries: &[Delivery]) {
        self.packets(KIND_RELEASED, deliveries);
    }

    /// Says that the session of a client ended.
    pub fn forgotten(&mut self, client: &str) {
        self.bytes.push(KIND_FORGOTTEN);
        put_text(&mut self.bytes, client);
    }

    /// Says that a record left the quarantine.
    pub fn left(&mut self, key: &str) {
        self.bytes.push(KIND_LEFT);
        put_text(&mut self.bytes, key);
    }

    /// Says that a record came into the quarantine.
    pub fn came(&mut self, record: &str) {
        self.bytes.push(KIND_CAME);
        put_text(&mut self.bytes, record);
    }

    /// Says that a segment is a copy.
    pub fn copy(&mut self, segment: SegmentId) {
        self.bytes.push(KIND_COPY);
        self.bytes.extend_from_slice(&segment.0.to_le_bytes());
    }

    /// Says that other members follow a segment.
    pub fn followed(&mut self, segment: SegmentId) {
        self.bytes.push(KIND_FOLLOWED);
        self.bytes.extend_from_slice(&segment.0.to_le_bytes());
    }

    /// Says what the rows of the packets that are said to be stored next were promised.
    pub fn promised(&mut self, promised: &Promised) {
        self.bytes.push(KIND_PROMISED);
        for text in [&promised.dbms, &promised.table] {
            put_text(&mut self.bytes, text);
        }
        self.bytes.extend_from_slice(&promised.file.producer.to_le_bytes());
        self.bytes.extend_from_slice(&promised.file.file.to_le_bytes());
        self.bytes.extend_from_slice(&promised.ordinal.to_le_bytes());
    }

    fn packets(&mut self, kind: u8, deliveries: &[Delivery]) {
        for run in deliveries.chunk_by(|a, b| a.client == b.client) {
            self.bytes.push(kind);
            put_text(&mut self.bytes, &run[0].client);
            put_length(&mut self.bytes, run.len());
            self.bytes.extend(run.iter().flat_map(|delivery| delivery.packet.to_le_bytes()));
        }
    }

    /// The segments whose rows are in it.
    #[must_use]
    pub fn segments(&self) -> &[Arc<SegmentHeader>] {
        &self.segments
    }

    /// Bytes on disk.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + 9 + self.bytes.len()
    }

    /// Appends the frame to `out`.
    pub fn frame_into(&self, sequence: u64, out: &mut Vec<u8>) {
        FORM.put(out, |out| {
            out.push(VERSION);
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&self.bytes);
        });
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}
