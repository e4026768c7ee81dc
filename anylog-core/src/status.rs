//! Numeric status codes of the command language, with their documented texts.
//!
//! Scripts and clients test these numbers (`get error 141`, `err_code` in a REST reply), so they are part of the
//! contract. Codes above 1000 steer scripts and never reach a client.

use std::fmt;

/// Outcome of a command as a documented number; 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($( $(#[$doc:meta])* $name:ident = $code:literal, $http:literal, $text:literal; )*) => {
        impl Status {
            $( $(#[$doc])* #[doc = concat!($code, ": ", $text)] pub const $name: Status = Status($code); )*

            /// The documented text of this code, or `Unknown error` for a number without one.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self.0 { $( $code => $text, )* _ => "Unknown error" }
            }

            /// The HTTP status code under which a REST server reports this outcome.
            #[must_use]
            pub fn http(self) -> u16 {
                match self.0 { $( $code => $http, )* _ => 400 }
            }

            /// Every code that has a documented text, in ascending order of declaration.
            pub const ALL: &'static [Status] = &[ $( Status($code), )* ];
        }
    };
}

statuses! {
    SUCCESS = 0, 200, "Success";
    COMMAND_STRUCTURE = 2, 400, "Error Command Structure";
    PROCESS_FAILURE = 3, 500, "Error Process Failure";
    WRONG_DBMS = 5, 404, "Wrong DBMS Name or DBMS not connected";
    JSON_STRUCTURE = 6, 400, "Error in JSON Structure";
    DBMS_NOT_OPEN = 10, 404, "DBMS not open";
    MISSING_BRACKETS = 11, 400, "Error missing brackets";
    NO_SUCH_FILE = 12, 404, "File does not exists";
    NETWORK = 15, 502, "Network Error";
    SQL_FAILURE = 16, 400, "SQL Failure";
    DESTINATION = 20, 400, "IP and Port of destination servers are not properly provided";
    MISSING_IP = 21, 400, "Missing IP address";
    TIME_OUT = 26, 504, "Time Out";
    NO_INSERT = 27, 400, "Failed to insert JSON rows";
    BLOCKCHAIN_OPERATION = 30, 400, "Blockchain operation failed";
    MISSING_CONFIGURATION = 33, 400, "Missing configuration";
    EXPRESSION = 34, 400, "Python call failed";
    NO_SUCH_DIRECTORY = 35, 404, "Directory does not exists";
    WRITE_FAILURE = 36, 500, "Failed to write stream to file";
    COMMAND_PARAMETERS = 40, 400, "Error in command parameters";
    NO_TABLE_METADATA = 45, 404, "Failed to load table metadata from blockchain";
    SQL_PARSE = 46, 400, "Failed to parse SQL statement";
    DBMS_NOT_CONNECTED = 50, 404, "DBMS not connected";
    REST_CALL = 51, 502, "REST call error";
    ARGUMENT_MISMATCH = 55, 400, "Argument mismatch in a script";
    SCRIPT_ERROR = 56, 400, "Error in script without 'on error' instruction";
    NO_LEDGER_FILE = 58, 404, "No local blockchain file";
    EMPTY_LEDGER_FILE = 59, 404, "Empty local blockchain file";
    SYSTEM_CALL = 61, 500, "System call terminated or failed";
    NOT_WRITABLE = 63, 500, "Directory is not writable";
    JSON_ANALYSIS = 67, 400, "Failed to analyze JSON file";
    DUPLICATE_OBJECT_ID = 70, 409, "Duplicate blockchain object id";
    NO_TABLE_LOCATION = 73, 404, "Table has no location in the metadata";
    INCONSISTENT_DECLARATION = 75, 400, "Inconsistent declaration of a table";
    VOLUME_EXCEEDED = 76, 400, "Query volume exceeds the limit";
    TIME_EXCEEDED = 77, 504, "Query time exceeds the limit";
    DROP_PARTITION_FAILED = 80, 400, "Drop partition failed";
    CONNECTION = 81, 400, "Connection Error";
    MAPPING_UNAVAILABLE = 85, 400, "Mapping policy is not available";
    DUPLICATE_FILE = 86, 409, "Duplicate JSON File";
    WRONG_POLICY = 87, 400, "Wrong policy structure";
    READ_DIRECTORY = 90, 500, "Failed to read files from dir";
    UNZIP = 100, 400, "Failed to unzip a file";
    WRONG_DBMS_TYPE = 104, 400, "Wrong DBMS type";
    SCHEDULER_NOT_ACTIVE = 105, 409, "Scheduler not active";
    REST_HEADERS = 110, 400, "Error in REST headers";
    NO_SCRIPT = 112, 404, "Missing script file";
    NO_POLICY = 113, 404, "Needed Policy is not available";
    FILE_TIME = 116, 400, "Error in the time segment of a file name";
    TSD = 117, 400, "Error in a TSD table";
    FILE_NAME_STRUCTURE = 119, 400, "Error in the structure of a file name";
    MESSAGE_CONNECT = 122, 502, "MQTT: Failed to connect to the broker";
    MESSAGE_DECLARATION = 124, 400, "MQTT: Error in the declaration of a topic";
    MESSAGE_DATA = 125, 400, "MQTT: Error in the data of a message";
    MESSAGE_DBMS = 126, 400, "MQTT: Failed to retrieve DBMS name from message";
    MESSAGE_TABLE = 127, 400, "MQTT: Failed to retrieve Table name from message";
    MESSAGE_CLIENT_ID = 128, 404, "MQTT: Unknown client id";
    MOVE_TO_WATCH = 129, 500, "File move to watch dir failed";
    TABLE_EXCLUDED = 130, 400, "Table is excluded by limit_tables";
    UNKNOWN_MEMBER = 131, 400, "File from an unknown cluster member";
    TABLE_NOT_IN_LEDGER = 132, 400, "Local table is not in the ledger";
    SQL_SELECT = 134, 400, "Error in SQL Select statement";
    TCP_NOT_RUNNING = 135, 409, "TCP server not running";
    PROCESS_RUNNING = 136, 409, "Process already active";
    UNRECOGNIZED_COMMAND = 141, 400, "Unrecognized Command";
    MOVE_TO_ARCHIVE = 148, 500, "File move to archive failed";
    NON_UNIQUE_ADDRESS = 149, 409, "IP and Port are used by a different operator";
    SYNC_NOT_RUNNING = 150, 409, "Blockchain synchronizer is not running";
    NOT_SUBSCRIBED = 154, 404, "MQTT: Topic is not subscribed";
    NO_DESTINATION = 155, 404, "Failed to determine destination node";
    WRONG_METHOD = 156, 405, "Wrong HTTP method used";
    MESSAGE_NOT_JSON = 158, 400, "MQTT: Message is not in JSON format";
    UNKNOWN_AGENT = 163, 400, "Unknown user agent";
    EMPTY_PERIOD = 166, 404, "No data in the requested period";
    NO_INGEST_MAPPING = 167, 400, "Missing data ingest mapping";
    CREATE_NOT_ALLOWED = 171, 400, "Operator is not allowed to create the table";
    NO_FILES = 172, 404, "Files not available in directory";
    NO_CLUSTER = 174, 400, "No cluster assigned to the operator";
    NON_UNIQUE_VALUES = 180, 409, "Non unique policy values";
    CONDITION = 181, 400, "Failed to parse \"if\" condition";
    TIMEOUT_VALUE = 182, 400, "Error timeout value";
    OPERATOR_NOT_RUNNING = 192, 503, "Operator processes not enabled";
    CAST_FAILED = 194, 400, "Failed to cast a value";
    CAST_UNKNOWN = 195, 400, "Unknown cast";
    NO_OPERATOR = 203, 503, "Operator not available";
    NO_PARTITION_NAME = 206, 400, "Missing partition in a file name";
    REFUSED = 208, 502, "Network connection to peer refused";
    UNAUTHORIZED = 212, 403, "Unauthorized command";
    NON_UNIQUE_POLICY = 215, 409, "Non unique policy";
    PORT_VALUE = 221, 400, "Wrong port value";
    NO_CLUSTER_POLICY = 222, 404, "Missing cluster policy";
    DATA_TYPE = 225, 400, "Wrong data type";
    SCRIPT_COMMAND = 229, 400, "Error in script command";
    OVERLOADED = 240, 503, "Node is overloaded, try again";
    DISK_FULL = 241, 507, "Not enough space on disk";
    DBMS_UNAVAILABLE = 242, 503, "Database cannot be used at the moment, try again";
    STARTING = 243, 503, "Node has not started, try again";
    DEBUG_REFUSED = 249, 400, "Interactive debugging is not possible on this thread";
    CONCATENATION = 302, 400, "Concatenating strings failed";
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({}: {})", self.0, self.text())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
