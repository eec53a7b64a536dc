//! A balancer before several API servers, which the segment's gateway plays.

use std::net::SocketAddrV4;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use podwire_cluster::addresses;
use podwire_lan::{GatewayHandle, SegmentListener, SegmentStream};
use tokio::io::copy_bidirectional;
use tokio::task::JoinSet;

use crate::lab::Lab;

/// How long an API server may take to accept a connection before the next one gets it: what a machine without power
/// costs whoever comes to it first. As in guests it is not stretched.
const PASSED_OVER: Duration = Duration::from_secs(3);

/// What balances as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Balancer(Mutex<JoinSet<()>>);

impl Lab {
    /// Where [`Lab::balance_api`] accepts connections.
    pub fn api_endpoint(&self) -> SocketAddrV4 {
        SocketAddrV4::new(addresses::GATEWAY, addresses::API_PORT)
    }

    /// From now on the gateway passes connections to its API port on to the API servers of these nodes, to one after
    /// the other; one that does not accept within three seconds is passed over. It knows nothing of what is
    /// said (TCP), and a connection stays where it is: whoever has one to a node that is no more finds that out alone.
    /// Connections through a former balancer end.
    ///
    /// # Errors
    /// When there is no segment any more.
    pub async fn balance_api(&self, nodes: &[u32]) -> anyhow::Result<()> {
        let names: Vec<String> = nodes.iter().map(|it| self.node(*it).to_string()).collect();
        let (endpoint, names) = (self.api_endpoint(), names.join(", "));
        self.step(format!(
            "the gateway balances {endpoint} over the API servers of {names}"
        ));
        let mut former = std::mem::take(&mut *self.balancer().lock());
        // Then its port is free.
        former.shutdown().await;
        let gateway = self.cluster().segment().gateway();
        let listener = gateway.listen(endpoint.port()).await?;
        let servers = nodes.iter().map(|it| self.node(*it).address());
        let servers = servers.map(|it| SocketAddrV4::new(it, addresses::API_PORT));
        let balanced = balance(listener, gateway, servers.collect());
        self.balancer().lock().spawn(balanced);
        Ok(())
    }
}

impl Balancer {
    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn balance(
    mut listener: SegmentListener,
    gateway: GatewayHandle,
    servers: Vec<SocketAddrV4>,
) {
    // Ends with this future.
    let mut carried = JoinSet::new();
    let mut turn = 0;
    loop {
        tokio::select! {
            client = listener.accept() => {
                let Some(client) = client else { return };
                let servers = in_turn(&servers, turn);
                turn += 1;
                carried.spawn(carry(client, gateway.clone(), servers));
            },
            Some(_) = carried.join_next() => {}
        }
    }
}

/// All of them, from the one whose turn it is.
fn in_turn(servers: &[SocketAddrV4], turn: usize) -> Vec<SocketAddrV4> {
    let from = turn.checked_rem(servers.len()).unwrap_or_default();
    let (before, after) = servers.split_at(from);
    [after, before].concat()
}

/// A client that none of them takes is reset.
async fn carry(mut client: SegmentStream, gateway: GatewayHandle, servers: Vec<SocketAddrV4>) {
    for server in servers {
        if let Ok(mut server) = gateway.connect(server, PASSED_OVER).await {
            // Either end may be reset: the other one is, when it is dropped.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn each_is_the_first_in_its_turn_and_all_are_tried() {
        let server = |last| SocketAddrV4::new(Ipv4Addr::new(172, 30, 0, last), 6443);
        let servers = [server(11), server(12), server(13)];
        let turns = |turn| in_turn(&servers, turn);
        assert_eq!(turns(0), servers);
        assert_eq!(turns(1), [server(12), server(13), server(11)]);
        assert_eq!(turns(5), [server(13), server(11), server(12)]);
        assert_eq!(in_turn(&[], 3), []);
    }
}
