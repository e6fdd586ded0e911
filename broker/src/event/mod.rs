//! Events on the exchange `celeryev`: sending what happens here ([`Emitter`]) and receiving what happens anywhere
//! ([`Receiver`]). What an event looks like is celery-protocol's.

mod emitter;
mod receiver;

pub use emitter::Emitter;
pub use receiver::{EventsOptions, Received, Receiver};

use crate::Celery;
use crate::amqp::{Consumer, ExchangeSpec};
use crate::error::BrokerError;

/// Celery's exchange for events: topic, durable.
fn exchange() -> ExchangeSpec {
    ExchangeSpec::durable(celery_protocol::event::EXCHANGE, "topic")
}

impl Celery {
    /// Sends events in the name of a node. Make one per node and clone it.
    pub fn event_emitter(&self, node: &str) -> Emitter {
        let shared = &self.shared;
        let emitter = Emitter::new(node, shared.clock.clone(), shared.lamport.clone(), shared.outbox.clone());
        if shared.outbox.is_none() {
            let (emitter, publisher) = (emitter.clone(), self.publisher().clone());
            shared.tasks.spawn("event emitter", |stop| emitter.run(publisher, stop));
        }
        emitter
    }

    /// Listens to events.
    ///
    /// # Errors
    /// The options make no sense, or this client is offline. That the broker is away is no error.
    pub fn events(&self, options: &EventsOptions) -> Result<Receiver, BrokerError> {
        self.require_servers()?;
        let link = self.control_link().clone();
        let consumer = Consumer::start(link, Receiver::options(options)?, &self.shared.tasks)?;
        Ok(Receiver::new(consumer, self.shared.clock.clone(), self.shared.lamport.clone()))
    }

    /// The emitter of this process as a producer.
    pub(crate) fn producer_events(&self) -> &Emitter {
        self.shared.events.get_or_init(|| self.event_emitter(&self.shared.origin))
    }
}
