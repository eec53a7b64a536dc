//! Services beside the ones that a scenario looks at: how many there are is what rules grow with.

use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::runtime::watcher;
use serde_json::json;

use crate::check::failure::Cause;
use crate::check::party::Party;
use crate::lab::Lab;
use crate::wait::needs::Needs;
use crate::wait::probe::Probe;

/// Where they get their addresses, of each family: the cluster's own range has room for some two hundred.
/// Nobody else has an address of these.
const RANGES: [&str; 2] = ["10.4.0.0/16", "fd00:10:4::/112"];
/// Asked at once: an API server that has one emulated processor is busy with half of them.
const AT_ONCE: usize = 8;
/// From the range's making until addresses are given out of it, before stretching.
const GIVEN_OUT: Duration = Duration::from_secs(20);
/// From the last one's making until a node leads there, before stretching: for kube-proxy, and so much for
/// each of their ports.
const LED: Duration = Duration::from_secs(20);
const EACH_LED: Duration = Duration::from_millis(10);

impl Lab {
    /// Makes so many Services more, `crowd-1` and so on, with so many ports each, from 80 on, all of which lead
    /// to this Pod, by EndpointSlices written by hand, and waits until the last one answers `from`. Their
    /// ClusterIPs are of a range of their own (Kubernetes docs, "Extend Service IP Ranges").
    ///
    /// kube-proxy writes rules for each port of each Service, whichever has them.
    ///
    /// # Errors
    /// When the API refuses one of them; a [`Failure`](crate::Failure) when it gives out no addresses of such a
    /// range, or the last one does not answer.
    pub async fn crowd_of_services(
        &self,
        count: u32,
        ports: u16,
        pod: &Party,
        from: &Party,
    ) -> anyhow::Result<()> {
        let of_ports = match ports {
            1 => String::new(),
            _ => format!(" of {ports} ports each"),
        };
        self.step(format!("{count} more Services{of_ports} lead to {pod}"));
        let families = self.ip_families().each().len();
        let range = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": { "name": "crowd" },
            "spec": { "cidrs": &RANGES[..families] },
        });
        self.apply(range).await?;
        self.until_given_out("crowd").await?;
        let of_crowd = |number: u32| self.service(format!("crowd-{number}"));
        let made = stream::iter(1..=count).map(|number| async move {
            let made = of_crowd(number).make_for(pod, ports).await;
            made.with_context(|| format!("of {count} Services number {number}"))
        });
        made.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let last = of_crowd(count).leading_to(pod).await?;
        let limit = LED + EACH_LED * count * u32::from(ports);
        self.until_all_answer_within(limit, std::slice::from_ref(from), &[last])
            .await
    }

    /// Waits until ClusterIPs are given out of a ServiceCIDR.
    async fn until_given_out(&self, name: &str) -> anyhow::Result<()> {
        let select = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let api: Api<ServiceCIDR> = Api::all(self.cluster().api());
        let expected = format!("the ServiceCIDR {name} to be ready");
        self.watch(expected, GIVEN_OUT, api, select, |listed| {
            let statuses = listed.iter().filter_map(|it| it.status.as_ref());
            let conditions = statuses.filter_map(|it| it.conditions.as_ref()).flatten();
            let ready = conditions
                .into_iter()
                .any(|it| it.type_ == "Ready" && it.status == "True");
            let probe = Probe::when(ready, Cause::NotReady, "nothing says that it is");
            Ok(probe.needs(Needs::ControlPlane("kube-controller-manager")))
        })
        .await
    }
}
