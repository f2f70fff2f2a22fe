//! Letters of the user's messages, between the thread that has them and the engine.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use shoal_host::shutdown::Shutdown;
use tokio::sync::mpsc::error::TrySendError;

use super::{Driver, ProxyContext};
use crate::daemon::mail::{Mail, Order, ToEngine};
use crate::engine::{Handle, contact_of_person};

/// Hands the engine what the thread wants of it, until `shutdown`.
pub(super) async fn post(context: Rc<ProxyContext>, mail: Option<Mail>, shutdown: &Shutdown) {
    let Some(Mail { orders, mut to_engine, .. }) = mail else { return };
    loop {
        let wanted = tokio::select! {
            wanted = to_engine.recv() => wanted,
            () = shutdown.wait() => return,
        };
        let Some(wanted) = wanted else { return };
        let order = {
            let mut user = context.hub.engine.borrow_mut();
            let now = user.clock.now();
            match wanted {
                ToEngine::Seek(address) => {
                    user.client.seek(now, address);
                    None
                }
                ToEngine::Vouch(letter, person) => {
                    user.client.authenticated(now, contact_of_person(person), letter);
                    None
                }
                ToEngine::Post { letter, to, message } => {
                    match user.client.write(now, to, &message) {
                        Ok(id) => Some(Order::Posted(letter, id)),
                        Err(_) => Some(Order::NoRoom(ToEngine::Post { letter, to, message })),
                    }
                }
            }
        };
        context.hub.wake_engine.notify_one();
        if let Some(order) = order
            && orders.send(order).await.is_err()
        {
            return;
        }
    }
}

impl Driver {
    /// A letter came.
    pub(super) fn keep_letter(&self, letter: Handle, message: Vec<u8>) {
        let Some(orders) = &self.orders else { return };
        if orders.try_send(Order::Received(letter, message)).is_err() {
            self.lost_letters.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the thread of messages has to know.
    pub(super) fn tell(&self, order: Order) {
        let Some(orders) = self.orders.clone() else { return };
        // There are never more of these than letters that the engine had, links and keys.
        if let Err(TrySendError::Full(order)) = orders.try_send(order) {
            tokio::task::spawn_local(async move { orders.send(order).await });
        }
    }
}
