//! Every promise of the contract, against the real binary, a real RabbitMQ and a real ledger; only WeChat is scripted.

mod support;

mod bad_input;
mod bulk;
mod config;
mod crash;
mod layout;
mod order;
mod results;
mod shutdown;
mod topology;
