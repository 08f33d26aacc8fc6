//! mmate-amqp
