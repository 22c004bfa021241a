//! RabbitMQ's users and rights as `deploy/rabbitmq` and `docs/who-may-do-what.md` have them, against a real broker and the real worker.

mod impersonator;
mod operator;
mod passwords;
mod refusals;
mod rights;
mod tried;
mod workers;
