//! Requests of any client, for the fuzz targets: decoded, checked, and turned into what runtimes are given.

use std::path::Path;

use containerd_api::types;
use prost::Message;

use super::{checkpoint, exec, update};
use crate::names;

/// A request: the first byte says which.
pub fn request(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let bundle = Path::new("/bundle");
    match kind % 8 {
        0 => {
            if let Some(request) = decoded::<types::CreateContainerRequest>(body) {
                let _ = names::container_id(Path::new("/state"), &request.id);
                let _ = checkpoint::directory(bundle, &request.checkpoint_dir);
                let _ = names::checkpoint(&request.checkpoint);
            }
        }
        1 => {
            if let Some(request) = decoded::<types::UpdateContainerRequest>(body) {
                let resources = update::oci_resources(&request.resources.unwrap_or_default());
                assert!(resources.is_object());
            }
        }
        2 => drop(decoded::<types::SignalRequest>(body)),
        3 => drop(decoded::<types::UpdateProcessRequest>(body)),
        4 => {
            if let Some(request) = decoded::<types::AddProcessRequest>(body) {
                let _ = names::process_id(&request.pid);
                let args = request.args.clone();
                assert_eq!(exec::oci_process(request)["args"], serde_json::json!(args));
            }
        }
        5 => {
            if let Some(request) = decoded::<types::CreateCheckpointRequest>(body) {
                let dir = checkpoint::directory(bundle, &request.checkpoint_dir);
                let name = request.checkpoint.unwrap_or_default().name;
                if let (Ok(dir), Ok(_)) = (dir, names::checkpoint(&name)) {
                    assert_eq!(dir.join(&name).parent(), Some(dir.as_path()), "{name:?} leads out of its directory");
                }
            }
        }
        6 => drop(decoded::<types::DeleteCheckpointRequest>(body)),
        _ => {
            if let Some(request) = decoded::<types::EventsRequest>(body) {
                if let Ok(Some(time)) = crate::time::from_proto(request.timestamp) {
                    let _ = crate::time::from_proto(Some(crate::time::to_proto(time)));
                }
            }
        }
    }
}

/// What was understood means the same after it was written and read.
fn decoded<T: Message + Default + PartialEq>(body: &[u8]) -> Option<T> {
    let request = T::decode(body).ok()?;
    assert!(T::decode(request.encode_to_vec().as_slice()).is_ok_and(|again| again == request));
    Some(request)
}
