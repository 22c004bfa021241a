//! Every promise of the contract, against the real binary, a real RabbitMQ and a real ledger; only WeChat is scripted.

#![expect(clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict, in its helpers as well")]

mod support;

mod admin_port;
mod alerts;
mod answers;
mod audit_trail;
mod authorisation;
mod bad_input;
mod bulk;
mod clients;
mod clock;
mod config;
mod confirms;
mod crash;
mod dashboards;
mod dead;
mod fleet;
mod healthcheck;
mod help;
mod hostile;
mod hosts;
mod isolation;
mod layout;
mod ledger_outages;
mod metrics;
mod order;
mod outages;
mod partitions;
mod pauses;
mod permissions;
mod private_postgres;
mod proving;
mod reading_back;
mod reload;
mod results;
mod schema;
mod secrets;
mod send;
mod shutdown;
mod snares;
mod status_page;
mod systemd;
mod tls;
mod token_sources;
mod topology;
mod traces;
mod watching;
