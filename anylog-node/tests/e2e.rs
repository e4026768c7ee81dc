//! The node as its users meet it: the real binary, mosquitto's clients and broker, curl, files, signals.
//!
//! Needs `curl`, `mosquitto` and `mosquitto-clients`, which `./test.sh` installs.

mod e2e {
    pub(crate) mod harness;

    mod broker;
    mod eleven_steps;
    mod message_client;
    mod rest_data;
    mod restart;
    mod values;
    mod watch_directory;
    mod wrong_input;
}
