//! The part of MQTT 3.1.1 that a load needs, written by hand so that the generator costs little beside what it measures.

pub mod packets;
pub mod publisher;
pub mod subscriber;
