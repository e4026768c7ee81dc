//! SQL over tables and their partitions, with the output formats of the network
