//! Letters of the user's programs, between the thread that keeps them and the engine.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use shoal_host::shutdown::Shutdown;
use tokio::sync::mpsc::error::TrySendError;

use super::{Driver, ProxyContext};
use crate::daemon::letters::{Mail, Order, Post};

/// Hands the engine what is due, until `shutdown`.
pub(super) async fn post(context: Rc<ProxyContext>, mail: Option<Mail>, shutdown: &Shutdown) {
    let Some(Mail { orders, mut posts, .. }) = mail else { return };
    loop {
        let post = tokio::select! {
            post = posts.recv() => post,
            () = shutdown.wait() => return,
        };
        let Some(Post { number, to, message }) = post else { return };
        let order = {
            let mut user = context.hub.engine.borrow_mut();
            let now = user.clock.now();
            match user.client.write(now, to, &message) {
                Ok(id) => Order::Posted(number, id),
                Err(_) => Order::NoRoom(number),
            }
        };
        context.hub.wake_engine.notify_one();
        if orders.send(order).await.is_err() {
            return;
        }
    }
}

impl Driver {
    /// A letter came: it is kept until a program takes it.
    pub(super) fn keep_letter(&self, message: Vec<u8>) {
        let Some(letters) = &self.letters else { return };
        if letters.try_send(Order::Received(message)).is_err() {
            self.lost_letters.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of a letter.
    pub(super) fn tell(&self, order: Order) {
        let Some(letters) = self.letters.clone() else { return };
        // There are never more of these than letters that the engine had.
        if let Err(TrySendError::Full(order)) = letters.try_send(order) {
            tokio::task::spawn_local(async move { letters.send(order).await });
        }
    }
}
