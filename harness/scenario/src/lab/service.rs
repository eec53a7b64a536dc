//! What a Service does with its clients' requests.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kube::runtime::watcher;
use podwire_cluster::Family;
use podwire_lan::witness::Moment;
use podwire_probe::{Outcome, TargetReport};

use crate::check::assert;
use crate::check::balance::Rounds;
use crate::check::failure::{Cause, Failure};
use crate::check::pairs::End;
use crate::check::party::{Asker, Party};
use crate::check::shares;
use crate::check::wire::Requests;
use crate::lab::node::Node;
use crate::lab::objects::{Service, ready};
use crate::lab::pods::Pod;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// Requests to a ClusterIP for each Pod behind it, among which each is almost certainly seen: one of
/// six is missed in one of a thousand looks, and in all four that end a wait once in 10^12.
const PER_POD: usize = 8;
/// Connections that are under way at once where most time out: all that waits is the sender's kernel.
const SILENT_AT_ONCE: u32 = 128;
/// Time-outs after which one look at a ClusterIP has seen enough.
const EARLY_TIME_OUTS: u32 = 16;
/// For the EndpointSlice to follow its Pods, and kube-proxy the EndpointSlice.
const FOLLOWS: Duration = Duration::from_secs(20);

impl Service<'_> {
    /// What a node's kube-proxy needs to send its connections to the ready endpoints.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn needs_from(&self, node: Node<'_>) -> anyhow::Result<Needs> {
        Ok(Needs::KubeProxy {
            node: node.number(),
            service: self.address().await?,
            pods: self.ready_endpoints().await?.into_iter().collect(),
        })
    }

    /// What a node's kube-proxy needs to follow it.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn needs_to_be_followed_on(&self, node: Node<'_>) -> anyhow::Result<Needs> {
        Ok(Needs::KubeProxy {
            node: node.number(),
            service: self.address().await?,
            pods: Vec::new(),
        })
    }

    /// kube-proxy follows the EndpointSlice with a delay of its own: a measurement starts when each of
    /// so many Pods has been seen once, and nobody else, by each family that the cluster has.
    ///
    /// # Errors
    /// A [`Failure`] when it does not come to that; it says how the Pods answer at their own addresses.
    pub async fn leads_to_all(&self, pods: usize, from: impl Into<Party>) -> anyhow::Result<()> {
        let from = from.into();
        for family in self.lab.ip_families().each() {
            self.leads_to_all_by(*family, pods, from.by(*family)?)
                .await?;
        }
        Ok(())
    }

    async fn leads_to_all_by(
        &self,
        family: Family,
        pods: usize,
        from: Party,
    ) -> anyhow::Result<()> {
        let address = self.address_by(family).await?;
        let first = self.address().await?;
        let since = self.lab.wire().now()?;
        let expected = format!("all {pods} Pods behind the ClusterIP, seen from {from}");
        // All at once, and no second round for a Service that is dead.
        let requests = u32::try_from(pods * PER_POD)?;
        let seen = self
            .lab
            .eventually(&expected, Duration::from_secs(30), async || {
                let running = self.pods().await?;
                if running.len() < pods {
                    let state = format!("{} of {pods} Pods run", running.len());
                    let needs = Needs::deployment(&self.name, pods);
                    return Ok(Probe::not_yet(Cause::NotReady, state).needs(needs));
                }
                // One of two Pods with the same address stays silent for ever.
                if let Err(shared) = assert::addresses_unique(&running) {
                    return Ok(Probe::hopeless(shared.cause, shared.seen).look(shared.look));
                }
                let asked = self.lab.ask(&from, address).by(self.kind).times(requests);
                let report = asked.at_most_time_outs(EARLY_TIME_OUTS).await?;
                let pairs = shares::shared(&End::from(&from), &report, &running, shares::ANY);
                let answered = assert::each_has_answered(&expected, &report, &running);
                let seen = Probe::judged(answered).pairs(Some(pairs.into()));
                Ok(match family {
                    Family::Ipv4 => seen.needs(Needs::KubeProxy {
                        node: from.node,
                        service: first,
                        pods: running.iter().map(|pod| pod.address).collect(),
                    }),
                    // What kube-proxy has for IPv6 is not looked into.
                    Family::Ipv6 => seen,
                })
            });
        match seen.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.asked_directly(&from, (address, since), error).await),
        }
    }

    /// The Pods that its EndpointSlices call ready.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn ready_pods(&self) -> anyhow::Result<Vec<Party>> {
        let ready = self.ready_endpoints().await?;
        let pods = self.lab.pods().anybodys().await?;
        let pods = pods.iter().filter_map(Pod::party);
        Ok(pods.filter(|pod| ready.contains(&pod.address)).collect())
    }

    /// Waits until a request to its ClusterIP is answered, by a Pod of its own: the asking node's kube-proxy
    /// knows it, if not each of its Pods.
    ///
    /// # Errors
    /// A [`Failure`] when it does not come to that, of the class of the last request.
    pub async fn until_a_pod_answers(
        &self,
        from: impl Into<Party>,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let (from, address) = (from.into(), self.address().await?);
        let since = self.lab.wire().now()?;
        let expected = format!("a Pod of the Service {} to answer {from}", self.name);
        let seen = self.lab.eventually(&expected, limit, async || {
            let pods = self.ready_pods().await?;
            let report = self.lab.ask(&from, address).by(self.kind).await?;
            let answered = assert::all_answered_by(&expected, &report, &pods);
            let pairs = shares::shared(&End::from(&from), &report, &pods, shares::WHOEVER);
            let seen = Probe::judged(answered).pairs(Some(pairs.into()));
            Ok(seen.needs(Needs::KubeProxy {
                node: from.node,
                service: address,
                pods: pods.iter().map(|pod| pod.address).collect(),
            }))
        });
        match seen.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self
                .asked_directly(&from, (address.into(), since), error)
                .await),
        }
    }

    /// Waits until the rules of a node name all of its ready endpoints: its kube-proxy has followed,
    /// whether or not a way leads there.
    ///
    /// # Errors
    /// A [`Failure`] when it does not come to that.
    pub async fn until_rules_for_all(&self, node: Node<'_>) -> anyhow::Result<()> {
        let (needs, ready) = (self.needs_from(node).await?, self.ready_endpoints().await?);
        anyhow::ensure!(!ready.is_empty(), "{} has no ready endpoint", self.name);
        let addresses = ready.iter().map(|address| format!(" -e {address}"));
        let named = format!(
            "{{ nft list ruleset; iptables-save -t nat; }} 2>/dev/null | grep -o -w -F{} | sort -u",
            addresses.collect::<String>()
        );
        let expected = format!("{} Pods in the rules of {node}", ready.len());
        self.lab
            .eventually(expected, FOLLOWS, async || {
                // grep exits with 1 when there is none.
                let named = node.run(&named).may_fail().await?;
                let count = named.stdout.lines().count();
                let state = format!("they name {count}");
                let all = Probe::when(count == ready.len(), Cause::NotReady, state);
                Ok(all.needs(needs.clone()))
            })
            .await
    }

    /// Waits until none of these Pods is among its ready endpoints.
    ///
    /// # Errors
    /// A [`Failure`] that names those which are, when it does not come to that.
    pub async fn until_no_endpoints(&self, pods: &[Party]) -> anyhow::Result<()> {
        let expected = format!("none of {} Pods among the ready endpoints", pods.len());
        let select = watcher::Config::default().labels(&self.label_of_slices());
        let watched = self
            .lab
            .watch(expected, FOLLOWS, self.slices(), select, |slices| {
                let ready = ready(slices);
                let left = pods.iter().filter(|pod| ready.contains(&pod.address));
                let left: Vec<String> = left.map(ToString::to_string).collect();
                let gone = Probe::when(left.is_empty(), Cause::Answered, left.join(", "));
                Ok(gone.needs(Needs::ControlPlane("kube-controller-manager")))
            });
        watched.await
    }

    /// Waits until the rules of a node name none of these Pods: its kube-proxy has followed.
    ///
    /// # Errors
    /// A [`Failure`] when it does not come to that.
    pub async fn until_no_rules(&self, pods: &[Party], node: Node<'_>) -> anyhow::Result<()> {
        // grep would ask for a pattern.
        if pods.is_empty() {
            return Ok(());
        }
        let needs = self.needs_to_be_followed_on(node).await?;
        let addresses = pods.iter().map(|pod| format!(" -e {}", pod.address));
        let count = format!(
            "{{ nft list ruleset; iptables-save -t nat; }} 2>/dev/null | grep -c -w -F{}; true",
            addresses.collect::<String>()
        );
        let expected = format!("none of {} Pods in the rules of {node}", pods.len());
        self.lab
            .eventually(expected, FOLLOWS, async || {
                let counted = node.run(&count).await?;
                let lines = counted.text();
                let state = format!("{lines} lines name them");
                Ok(Probe::when(lines == "0", Cause::Answered, state).needs(needs.clone()))
            })
            .await
    }

    /// Waits until a node's requests to its ClusterIP all go to one Pod: kube-proxy has followed
    /// [`Service::stick_clients_to_one_pod`].
    ///
    /// # Errors
    /// A [`Failure`] when it does not come to that.
    pub async fn until_one_pod_answers(&self, node: Node<'_>) -> anyhow::Result<()> {
        let address = self.address().await?;
        let needs = self.needs_to_be_followed_on(node).await?;
        let expected = format!("{node} to get one Pod only");
        self.lab
            .eventually(&expected, FOLLOWS, async || {
                let pods = self.ready_pods().await?;
                let asked = self.lab.ask(node, address).by(self.kind);
                let report = asked.times(16).await?;
                let answered = assert::all_answered_by(&expected, &report, &pods);
                let count = report.hosts().len();
                let stuck = match answered {
                    Ok(()) => Probe::when(count == 1, Cause::NotReady, format!("{count} Pods")),
                    other => Probe::judged(other),
                };
                Ok(stuck.needs(needs.clone()))
            })
            .await
    }

    /// The verdict on steady traffic to its ClusterIP; a failure also says whether the Pods answer the sender at
    /// their own addresses now, and how far a request to one comes that does not.
    ///
    /// # Errors
    /// The [`Failure`].
    pub async fn as_judged(
        &self,
        from: &Party,
        verdict: Result<(), Failure>,
    ) -> anyhow::Result<()> {
        let Err(failure) = verdict else {
            return Ok(());
        };
        let (address, since) = (self.address().await?, self.lab.wire().now()?);
        let asked = (address.into(), since);
        Err(self.asked_directly(from, asked, failure.into()).await)
    }

    async fn pods(&self) -> anyhow::Result<Vec<Party>> {
        self.lab.deployment(&self.name).pods().running().await
    }

    /// Says of its failure whether the Pods answer at their own addresses: it, or the way. It was asked at
    /// this address since then.
    async fn asked_directly(
        &self,
        from: &Party,
        (address, since): (IpAddr, Moment),
        error: anyhow::Error,
    ) -> anyhow::Error {
        let mut failure = match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => return error,
        };
        let told = async {
            let pods = self.pods().await?;
            let pods = by(from.family, &pods)?;
            let mesh = self.lab.mesh(std::slice::from_ref(from), &pods);
            let mesh = mesh.by(self.kind).await?;
            Ok::<_, anyhow::Error>(mesh.cells)
        };
        let wire = self.lab.wire();
        let target = address.to_string();
        let to_service = wire
            .trace_to(&Asker::from(from), &target, self.kind, since, &[])
            .await;
        // What was seen is worth more than that no more could be.
        let cells = told.await.unwrap_or_default();
        if let Some(pairs) = &mut failure.pairs {
            let directly = cells.iter().find_map(|cell| cell.came.clone());
            pairs.lost = directly.or(to_service);
            if shares::is_silent_to_itself(pairs, from) {
                failure.look = shares::look_at_hairpin(from);
            }
        }
        if !cells.is_empty() {
            let told = cells.iter().map(|cell| format!("\n  {cell}"));
            let told: String = told.collect();
            failure.seen += &format!("\nAsked at their own addresses:{told}");
        }
        failure.into()
    }

    /// The balancing rule: requests to its ClusterIP spread evenly over all Pods that its Deployment is
    /// to have, asked in as many rounds as it takes to say so; in a dual-stack cluster to each of its
    /// ClusterIPs. What it gives is for [`Wire::carried`](crate::Wire::carried): by which way they went.
    ///
    /// # Errors
    /// A [`Failure`] with each Pod's count, when they do not, and how far those came that were not
    /// answered; when not all run.
    pub async fn spreads_evenly(&self, from: impl Into<Party>) -> anyhow::Result<Requests> {
        let from = from.into();
        let pods = self.lab.deployment(&self.name).pods().all_running().await?;
        let since = self.lab.wire().now()?;
        let mut all = Requests {
            since,
            crossings: Vec::new(),
        };
        for family in self.lab.ip_families().each() {
            let (from, pods) = (from.by(*family)?, by(*family, &pods)?);
            let sent = self.spreads_evenly_by(from, &pods).await?;
            all.crossings.extend(sent.crossings);
        }
        Ok(all)
    }

    async fn spreads_evenly_by(&self, from: Party, pods: &[Party]) -> anyhow::Result<Requests> {
        let backends: Vec<String> = pods.iter().map(|pod| pod.name.clone()).collect();
        let requests = assert::requests_for(backends.len());
        let address = self.address_by(from.family).await?;
        let since = self.lab.wire().now()?;
        let round = || self.lab.ask(&from, address).by(self.kind).times(requests);
        let mut report = round().await?;
        let failure = loop {
            match assert::balanced(&report, &backends) {
                Ok(true) => return Ok(Requests::to_service(since, &from, pods, &report)),
                Ok(false) => {
                    self.lab.step(format!(
                        "the counts leave it open: {requests} requests more"
                    ));
                    add(&mut report, round().await?);
                }
                Err(failure) => break failure,
            }
        };
        let mut sent = Requests::to_service(since, &from, pods, &report);
        let clients = self.lab.wire().clients_of(&from).await;
        sent.crossings
            .iter_mut()
            .for_each(|it| it.clients.extend(&clients));
        let told = report.results.iter().map(|it| u64::from(it.count)).sum();
        let share = Rounds::of(u32::try_from(pods.len())?).fair(told);
        let failure = failure.pairs(shares::shared(&End::from(&from), &report, pods, share));
        let wire = self.lab.wire();
        let mut failure = wire.trouble(&sent, failure);
        if let Some(pairs) = &mut failure.pairs
            && pairs.lost.is_none()
            && report.count(Outcome::TimedOut) > 0
        {
            pairs.lost = wire
                .trace_to(&Asker::from(&from), &report.target, self.kind, since, &[])
                .await;
        }
        Err(failure.into())
    }

    /// Where only some of its Pods can be reached, connections to its ClusterIP succeed as often as
    /// chance leads to one of these, and time out otherwise, see [`assert::answered_by_share`].
    ///
    /// # Errors
    /// A [`Failure`] with who answered, when they do otherwise; when not all Pods run that its Deployment
    /// is to have.
    pub async fn answers_by_share(
        &self,
        reachable: &[Party],
        from: impl Into<Party>,
    ) -> anyhow::Result<()> {
        let all = self.lab.deployment(&self.name).pods().all_running().await?;
        let asked = self.lab.ask(from, self.address().await?).by(self.kind);
        let asked = asked.times(assert::requests_for(all.len()));
        let report = asked.whatever_times_out(SILENT_AT_ONCE).await?;
        let reachable: Vec<String> = reachable.iter().map(|pod| pod.name.clone()).collect();
        Ok(assert::answered_by_share(&report, &reachable, all.len())?)
    }
}

/// The same, as they are asked by a family.
fn by(family: Family, pods: &[Party]) -> Result<Vec<Party>, Failure> {
    pods.iter().map(|pod| pod.by(family)).collect()
}

/// Adds what a later round of the same requests brought.
fn add(all: &mut TargetReport, round: TargetReport) {
    all.unsent += round.unsent;
    for more in round.results {
        let same = all.results.iter_mut().find(|it| {
            (it.outcome, &it.host, &it.client) == (more.outcome, &more.host, &more.client)
        });
        match same {
            Some(same) => same.count += more.count,
            None => all.results.push(more),
        }
    }
}

impl Node<'_> {
    /// Has the kernel forget what was sent to an address before the rules were there: such a connection
    /// attempt is remembered, untranslated, for two minutes. A new request that happens to get the same
    /// source port counts as its repetition: it is not translated either, and kube-proxy's rules reject
    /// it (`cluster-ips-check` of its nftables mode).
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn forget_attempts_at(self, address: Ipv4Addr) -> anyhow::Result<()> {
        // It exits with 1 when there is nothing to forget.
        self.run(format!("conntrack -D -p tcp -d {address}"))
            .may_fail()
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwire_probe::Counted;

    fn told(results: &[(&str, u32)], unsent: u32) -> TargetReport {
        let results = results.iter().map(|(host, count)| Counted {
            outcome: Outcome::Answered,
            host: Some((*host).to_owned()),
            client: None,
            count: *count,
            octets: None,
            slowest_ms: None,
            error: None,
        });
        TargetReport {
            target: "10.0.0.42:80".to_owned(),
            results: results.collect(),
            unsent,
            attempts: vec![],
        }
    }

    #[test]
    fn rounds_are_added_by_who_answered() {
        let mut all = told(&[("a", 90), ("b", 110)], 0);
        add(&mut all, told(&[("b", 99), ("c", 101)], 3));
        assert_eq!(all, told(&[("a", 90), ("b", 209), ("c", 101)], 3));
    }
}
