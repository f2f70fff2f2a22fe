//! What handles ask of the engine's thread.

use std::rc::Rc;
use std::time::Duration;

use shoal_host::shutdown::Shutdown;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Command, CommandReply, ConnectError};
use crate::daemon::proxy::{self, Translated};
use crate::daemon::stream::{bridge, pair};
use crate::daemon::user::{ProxyContext, Refused};
use crate::engine::Isolation;
use crate::request::Response;
use crate::socks::{ReplyCode, SocksRequest};

/// Does what handles ask for until `shutdown`, or until no handle is left. To be called on the engine's thread.
pub(super) async fn obey(
    context: Rc<ProxyContext>,
    mut commands: mpsc::Receiver<Command>,
    request_timeout: Duration,
    shutdown: Shutdown,
) {
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = shutdown.wait() => return,
        };
        let context = context.clone();
        match command {
            Some(Command::Ask { request, isolation, mut answer }) => {
                tokio::task::spawn_local(async move {
                    let asked = timeout(request_timeout, ask(&context, &request, isolation));
                    context.tally.borrow_mut().open += 1;
                    let answered = tokio::select! {
                        answered = asked => answered,
                        // Who asked has gone; what was under way is given up.
                        () = answer.closed() => return context.tally.borrow_mut().open -= 1,
                    };
                    let answered = answered.unwrap_or(Err(ReplyCode::TtlExpired.into()));
                    {
                        let mut tally = context.tally.borrow_mut();
                        tally.open -= 1;
                        match &answered {
                            Ok(_) => tally.answered += 1,
                            Err(_) => tally.refused += 1,
                        }
                    }
                    let _ = answer.send(answered.map_err(ConnectError::from));
                });
            }
            Some(Command::Socks(listener, settings)) => {
                let shutdown = shutdown.clone();
                tokio::task::spawn_local(proxy::serve(listener, context, settings, shutdown));
            }
            None => return,
        }
    }
}

async fn ask(
    context: &Rc<ProxyContext>,
    request: &SocksRequest,
    isolation: Isolation,
) -> Result<CommandReply, Refused> {
    let (target, asked) = match proxy::translate(request, &context.virtual_addresses)? {
        Translated::Ask(target, asked) => (target, asked),
        Translated::Resolved(address) => {
            let ip = context.virtual_addresses.borrow_mut().give(address);
            return Ok(CommandReply::Resolved(vec![ip.into()]));
        }
    };
    let (stream, response, rest) = context.ask(isolation, target, &asked).await?;
    match response {
        Response::Connected => {
            let (ours, pipe) = pair();
            tokio::task::spawn_local(async move { bridge(&stream, rest, pipe).await });
            Ok(CommandReply::Connected(ours))
        }
        Response::Resolved { addresses, .. } => Ok(CommandReply::Resolved(addresses)),
        _ => Err(ReplyCode::GeneralFailure.into()),
    }
}
