//! What the stand-in reads of Kubernetes' objects, and what they say of each other. No process is started here.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The objects of one overlay.
#[derive(Debug, Default)]
pub struct Objects {
    /// Deployments and StatefulSets by name.
    pub workloads: BTreeMap<String, Workload>,
    /// Services by name.
    pub services: BTreeMap<String, ServiceSpec>,
    /// How much each PersistentVolumeClaim asks for, by name: `10Gi`.
    pub claims: BTreeMap<String, String>,
    /// What ConfigMaps and Secrets hold, by kind and name.
    pub data: BTreeMap<(String, String), BTreeMap<String, String>>,
}

/// A Deployment or a StatefulSet.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its name; read from the metadata.
    #[serde(skip)]
    pub name: String,
    /// How many pods; one, if nothing is said.
    pub replicas: Option<usize>,
    /// How long a pod must be ready before the next old one may go.
    #[serde(default)]
    pub min_ready_seconds: u64,
    /// How pods are replaced; only Deployments say it.
    #[serde(default)]
    pub strategy: Strategy,
    /// The pods.
    pub template: Template,
}

/// How the pods of a Deployment are replaced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// `Recreate`, or `RollingUpdate`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// How many at a time.
    pub rolling_update: Option<RollingUpdate>,
}

/// Bounds of a rolling update: numbers, or shares such as `25%`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// How many more than wanted there may be.
    pub max_surge: Option<Value>,
    /// How many fewer than wanted may be ready.
    pub max_unavailable: Option<Value>,
}

/// The template of a pod.
#[derive(Clone, Debug, Deserialize)]
pub struct Template {
    /// Labels.
    pub metadata: TemplateMeta,
    /// The pod.
    pub spec: PodSpec,
}

/// The metadata of a template.
#[derive(Clone, Debug, Deserialize)]
pub struct TemplateMeta {
    /// What services select by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Its containers; the stand-in knows pods with one.
    pub containers: Vec<Container>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Between SIGTERM and SIGKILL.
    pub termination_grace_period_seconds: u64,
    /// Whom it runs as.
    pub security_context: PodSecurity,
}

/// Whom a pod runs as.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// User id.
    pub run_as_user: u32,
    /// Group id.
    pub run_as_group: u32,
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its image with tag.
    pub image: String,
    /// In place of the image's entry point.
    #[serde(default)]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Variables, all of a ConfigMap or Secret.
    #[serde(default)]
    pub env_from: Vec<EnvFrom>,
    /// Ports it listens on.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Where volumes are.
    #[serde(default)]
    pub volume_mounts: Vec<Mount>,
    /// How it is held.
    pub security_context: ContainerSecurity,
    /// Until this succeeds no other probe runs.
    pub startup_probe: Option<Probe>,
    /// Whether it gets requests, and counts in a rollout.
    pub readiness_probe: Option<Probe>,
    /// Whether it is restarted.
    pub liveness_probe: Option<Probe>,
}

/// How a container is held.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSecurity {
    /// Whether nothing but volumes can be written to.
    #[serde(default)]
    pub read_only_root_filesystem: bool,
}

/// One variable.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
    /// Or where that is.
    pub value_from: Option<ValueFrom>,
}

/// Where a value is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// In a Secret.
    pub secret_key_ref: Option<KeyRef>,
    /// In a ConfigMap.
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Deserialize)]
pub struct KeyRef {
    /// Which.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// All variables of a ConfigMap or Secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvFrom {
    /// Which ConfigMap.
    pub config_map_ref: Option<Named>,
    /// Which Secret.
    pub secret_ref: Option<Named>,
}

/// Something by its name.
#[derive(Clone, Debug, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
}

/// A port of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// How probes and services call it.
    pub name: String,
    /// Its number.
    pub container_port: u16,
}

/// Where a volume is in a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The volume.
    pub name: String,
    /// The path.
    pub mount_path: String,
    /// Whether it can be written to.
    #[serde(default)]
    pub read_only: bool,
}

/// A volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Keys of a Secret as files.
    pub secret: Option<SecretVolume>,
    /// Keys of a ConfigMap as files.
    pub config_map: Option<Named>,
    /// An empty folder that goes with the pod.
    pub empty_dir: Option<Value>,
    /// A folder that outlives the pod.
    pub persistent_volume_claim: Option<Claim>,
}

/// A folder that outlives the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Its name.
    pub claim_name: String,
}

/// Keys of a Secret as files.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolume {
    /// Which.
    pub secret_name: String,
    /// Which keys, and the files' names.
    #[serde(default)]
    pub items: Vec<Item>,
}

/// A key and the name of its file.
#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The file.
    pub path: String,
}

/// A probe.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// GET answers with a status from 200 to 399.
    pub http_get: Option<HttpGet>,
    /// A connection can be made.
    pub tcp_socket: Option<TcpSocket>,
    /// A program in the container ends with 0.
    pub exec: Option<Exec>,
    /// Seconds between two probes.
    #[serde(default = "ten")]
    pub period_seconds: u64,
    /// Seconds for one.
    #[serde(default = "one")]
    pub timeout_seconds: u64,
    /// How many must fail in a row.
    #[serde(default = "three")]
    pub failure_threshold: u32,
}

/// An HTTP probe.
#[derive(Clone, Debug, Deserialize)]
pub struct HttpGet {
    /// Path and query.
    pub path: String,
    /// A name of a port.
    pub port: String,
}

/// A TCP probe.
#[derive(Clone, Debug, Deserialize)]
pub struct TcpSocket {
    /// A name of a port.
    pub port: String,
}

/// A program as probe.
#[derive(Clone, Debug, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A service.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceSpec {
    /// Labels of the pods it leads to.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its number.
    pub port: u16,
    /// The name of the pods' port.
    pub target_port: String,
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}

fn three() -> u32 {
    3
}

impl Objects {
    /// Reads what `render.py` printed.
    ///
    /// # Errors
    /// An object that is not of the expected form.
    pub fn read(list: &[Value]) -> anyhow::Result<Self> {
        let mut objects = Self::default();
        for object in list {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let spec = object["spec"].clone();
            let wrong = || format!("{kind}/{name} is not as the stand-in expects it");
            match kind.as_str() {
                "Deployment" | "StatefulSet" => {
                    let workload: Workload = serde_json::from_value(spec).with_context(wrong)?;
                    objects.workloads.insert(name.clone(), Workload { name, ..workload });
                }
                "Service" => {
                    objects.services.insert(name.clone(), serde_json::from_value(spec).with_context(wrong)?);
                }
                "ConfigMap" | "Secret" => {
                    let data = object["data"].as_object().cloned().unwrap_or_default();
                    let text = |value: &Value| match (kind.as_str(), value.as_str().unwrap_or_default()) {
                        ("Secret", text) => decode(text),
                        (_, text) => Ok(text.to_owned()),
                    };
                    let data: anyhow::Result<_> =
                        data.iter().map(|(key, value)| Ok((key.clone(), text(value)?))).collect();
                    objects.data.insert((kind.clone(), name.clone()), data.with_context(wrong)?);
                }
                "PersistentVolumeClaim" => {
                    let size = spec["resources"]["requests"]["storage"].as_str().with_context(wrong)?;
                    objects.claims.insert(name.clone(), size.to_owned());
                }
                _ => {}
            }
        }
        Ok(objects)
    }

    /// The value of a key.
    pub(crate) fn value(&self, kind: &str, reference: &KeyRef) -> anyhow::Result<String> {
        let data = self.all(kind, &reference.name)?;
        let value = data.get(&reference.key);
        value.cloned().with_context(|| format!("{kind} {} has no key {}", reference.name, reference.key))
    }

    /// All keys with their values.
    pub(crate) fn all(&self, kind: &str, name: &str) -> anyhow::Result<&BTreeMap<String, String>> {
        self.data
            .get(&(kind.to_owned(), name.to_owned()))
            .with_context(|| format!("there is no {kind} {name}"))
    }

    /// The variables of a container, in the order of Kubernetes: later ones win.
    ///
    /// # Errors
    /// A ConfigMap, Secret or key that is not there.
    pub fn environment(&self, container: &Container) -> anyhow::Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for from in &container.env_from {
            if let Some(map) = &from.config_map_ref {
                found.extend(self.all("ConfigMap", &map.name)?.clone());
            }
            if let Some(secret) = &from.secret_ref {
                found.extend(self.all("Secret", &secret.name)?.clone());
            }
        }
        for var in &container.env {
            let value = match (&var.value, &var.value_from) {
                (Some(value), _) => value.clone(),
                (None, Some(ValueFrom { secret_key_ref: Some(key), .. })) => self.value("Secret", key)?,
                (None, Some(ValueFrom { config_map_key_ref: Some(key), .. })) => {
                    self.value("ConfigMap", key)?
                }
                _ => bail!("{}: a value of this kind is not known to the stand-in", var.name),
            };
            found.insert(var.name.clone(), value);
        }
        Ok(found)
    }

    /// The files of a volume; `None` for a folder to write to.
    ///
    /// # Errors
    /// A ConfigMap, Secret or key that is not there.
    pub fn files(&self, volume: &Volume) -> anyhow::Result<Option<BTreeMap<String, String>>> {
        match volume {
            Volume { secret: Some(secret), .. } if secret.items.is_empty() => {
                Ok(Some(self.all("Secret", &secret.secret_name)?.clone()))
            }
            Volume { secret: Some(secret), .. } => {
                let files = secret.items.iter().map(|item| {
                    let key = KeyRef { name: secret.secret_name.clone(), key: item.key.clone() };
                    Ok((item.path.clone(), self.value("Secret", &key)?))
                });
                files.collect::<anyhow::Result<_>>().map(Some)
            }
            Volume { config_map: Some(map), .. } => Ok(Some(self.all("ConfigMap", &map.name)?.clone())),
            Volume { empty_dir: Some(_), .. } => Ok(None),
            Volume { persistent_volume_claim: Some(Claim { claim_name }), .. } => {
                anyhow::ensure!(self.claims.contains_key(claim_name), "there is no claim {claim_name}");
                Ok(None)
            }
            Volume { name, .. } => bail!("volume {name}: this kind is not known to the stand-in"),
        }
    }
}

impl Workload {
    /// Whether its old pods go before new ones come.
    pub(crate) fn recreates(&self) -> bool {
        self.strategy.kind.as_deref() == Some("Recreate")
    }

    /// How many more, and how many fewer than `wanted` there may be during a rollout.
    pub(crate) fn bounds(&self, wanted: usize) -> (usize, usize) {
        let rolling = self.strategy.rolling_update.as_ref();
        let surge = share(rolling.and_then(|bounds| bounds.max_surge.as_ref()), wanted, true);
        let missing = share(rolling.and_then(|bounds| bounds.max_unavailable.as_ref()), wanted, false);
        // As Kubernetes: with neither nothing would ever move.
        if surge + missing == 0 { (1, 0) } else { (surge, missing) }
    }
}

/// A number, or a share of `wanted`: of a surge rounded up, of what may be missing rounded down.
fn share(bound: Option<&Value>, wanted: usize, up: bool) -> usize {
    match bound {
        Some(Value::Number(number)) => number.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        Some(Value::String(text)) => percent(text.trim_end_matches('%').parse().unwrap_or(0), wanted, up),
        _ => percent(25, wanted, up),
    }
}

fn percent(percent: usize, wanted: usize, up: bool) -> usize {
    let hundredths = wanted * percent;
    if up { hundredths.div_ceil(100) } else { hundredths / 100 }
}

fn decode(text: &str) -> anyhow::Result<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workload(strategy: &Value) -> Workload {
        let pod = json!({"containers": [], "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 1, "runAsGroup": 1}});
        let spec = json!({"strategy": strategy, "template": {"metadata": {}, "spec": pod}});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn bounds_of_rollouts_are_rounded_as_kubernetes_does() {
        let rolling = |surge: Value, missing: Value| {
            workload(&json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}))
        };
        assert_eq!(rolling(json!("25%"), json!(0)).bounds(5), (2, 0));
        assert_eq!(rolling(json!("25%"), json!("25%")).bounds(5), (2, 1));
        assert_eq!(rolling(json!(0), json!(0)).bounds(5), (1, 0));
        assert_eq!(workload(&json!({})).bounds(4), (1, 1));
        assert!(workload(&json!({"type": "Recreate"})).recreates());
    }

    #[test]
    fn a_missing_key_is_named() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "broker"}, "data": {"url": "eA=="}});
        let objects = Objects::read(&[secret]).unwrap();
        let key = |key: &str| KeyRef { name: "broker".to_owned(), key: key.to_owned() };
        assert_eq!(objects.value("Secret", &key("url")).unwrap(), "x");
        assert!(objects.value("Secret", &key("uri")).unwrap_err().to_string().contains("no key uri"));
        assert!(
            objects.value("ConfigMap", &key("url")).unwrap_err().to_string().contains("no ConfigMap broker")
        );
    }
}
