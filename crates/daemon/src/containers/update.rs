//! `update`: limits and the restart policy, in the record and in the running container.

use api::types::{ContainerUpdateRequest, ContainerUpdateResponse, Resources};

use super::{spec, validate};
use crate::Daemon;
use crate::error::{Error, Result};

impl Daemon {
    /// Changes limits and the restart policy.
    pub(crate) async fn container_update(
        &self,
        name: &str,
        request: ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse> {
        validate::check_resources(&request.resources, &mut Vec::new())?;
        let container = self.container(name)?;
        let _op = container.op.lock().await;
        let before = container.record();
        let mut host = before.host_config.clone();
        let cannot = |why: &dyn std::fmt::Display| format!("Cannot update container {}: {why}", before.id);
        let mut asked_resources = request.resources.clone();
        let mut warnings = Vec::new();
        validate::discard_unsupported(&mut asked_resources, &mut warnings);
        merge(&mut host.resources, &asked_resources).map_err(|e| Error::Conflict(cannot(&e)))?;
        if !request.restart_policy.name.is_empty() {
            if host.auto_remove && request.restart_policy.name != "no" {
                let why = "Restart policy cannot be updated because AutoRemove is enabled for the container";
                return Err(Error::Conflict(cannot(&why)));
            }
            validate::check_restart(&request.restart_policy, host.auto_remove)?;
            host.restart_policy = request.restart_policy.clone();
        }
        warnings.extend(validate::check(&before.config, &host, &self.config)?);
        let asked = asked_resources != Resources::default();
        if before.state.running().is_some() && asked {
            self.containerd
                .update(&container.id, spec::resources::to_update(&host.resources))
                .await
                .map_err(|e| Error::System(cannot(&e)))?;
        }
        let record = container.change(|r| {
            r.host_config = host;
            Ok(())
        })?;
        self.container_event(&record, "update", &[]);
        Ok(ContainerUpdateResponse { warnings: warnings.into() })
    }
}

/// What is set in the request replaces what was; zero means "leave".
fn merge(own: &mut Resources, new: &Resources) -> Result<()> {
    let number = |field: &mut i64, value: i64| {
        if value != 0 {
            *field = value;
        }
    };
    if new.nano_cpus != 0 && (own.cpu_period != 0 || own.cpu_quota != 0) {
        return Err(Error::Conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period or Quota has already been set".into(),
        ));
    }
    if (new.cpu_period != 0 || new.cpu_quota != 0) && own.nano_cpus != 0 {
        return Err(Error::Conflict(
            "Conflicting options: CPU Period or Quota cannot be updated as NanoCPUs has already been set".into(),
        ));
    }
    if new.memory != 0 && own.memory_swap > 0 && new.memory > own.memory_swap && new.memory_swap == 0 {
        return Err(Error::Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
                .into(),
        ));
    }
    number(&mut own.cpu_shares, new.cpu_shares);
    number(&mut own.nano_cpus, new.nano_cpus);
    number(&mut own.cpu_period, new.cpu_period);
    number(&mut own.cpu_quota, new.cpu_quota);
    number(&mut own.cpu_realtime_period, new.cpu_realtime_period);
    number(&mut own.cpu_realtime_runtime, new.cpu_realtime_runtime);
    number(&mut own.memory, new.memory);
    number(&mut own.memory_swap, new.memory_swap);
    number(&mut own.memory_reservation, new.memory_reservation);
    if new.blkio_weight != 0 {
        own.blkio_weight = new.blkio_weight;
    }
    for (field, value) in [(&mut own.cpuset_cpus, &new.cpuset_cpus), (&mut own.cpuset_mems, &new.cpuset_mems)] {
        if !value.is_empty() {
            field.clone_from(value);
        }
    }
    if new.pids_limit.is_some() {
        own.pids_limit = new.pids_limit;
    }
    Ok(())
}
