//! What stands in `deploy/`: judged by the tools of those who run it, and run as far as that goes without an engine.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::judge::{accepts, copy, deploy, documents, judge, resource, text, tool};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, repository, tollgate};
use crate::support::upstream::Upstream;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SERVED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Fills in a configuration of `deploy/` what differs on this machine; each text must be there.
#[track_caller]
fn here(yaml: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(yaml.to_owned(), |yaml, (from, to)| {
        assert!(yaml.contains(from), "{from} in\n{yaml}");
        yaml.replace(from, to)
    })
}

/// `tollgate check` finds nothing, no warning either.
#[track_caller]
fn is_valid(yaml: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    std::fs::write(&path, yaml).unwrap();
    let checked = tollgate(&["check", "--strict", "-c", &path.display().to_string()]);
    assert_eq!(checked.code, Some(0), "{}{}\n{yaml}", checked.output, checked.errors);
}

/// Waits until it counts in Redis.
#[track_caller]
fn counts_in_redis(proxy: &Tollgate, token: &str) {
    let up = || proxy.scrape(token).contains("\ntollgate_store_up 1\n").then_some(());
    eventually("every worker is connected to Redis", up);
}

/// A file with a secret, as a mount brings it.
fn secret(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn dockerfiles_are_clean_and_name_a_user_by_number_and_a_health_check() {
    for name in ["docker/Dockerfile", "docker/Dockerfile.scratch"] {
        accepts(tool("hadolint").arg(deploy(name)));
        let file = text(name);
        let last = file.rsplit("\nFROM ").next().unwrap();
        assert!(last.contains("\nUSER 65532:65532\n"), "{name}");
        assert!(last.contains("CMD [\"/usr/bin/tollgate\", \"status\"]"), "{name}");
    }
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(text("docker/Dockerfile").contains(&format!("/rust:{rust}-")), "compiled with Rust {rust}");
}

#[test]
fn compose_is_understood_and_mounts_what_exists() {
    let file = deploy("compose/compose.yaml");
    let told = accepts(tool("podman-compose").arg("-f").arg(&file).arg("config"));
    let told = documents(&told).remove(0);
    let services = told["services"].as_object().unwrap();
    let mut names: Vec<_> = services.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["grafana", "prometheus", "proxy-1", "proxy-2", "redis", "upstream"]);
    for (name, service) in services {
        let image = service["image"].as_str().unwrap();
        assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{name}: {image} has no version");
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let from = mount.as_str().unwrap().split(':').next().unwrap();
            assert!(file.parent().unwrap().join(from).exists(), "{name} mounts {from}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} is open to other machines: {port}");
        }
    }
}

#[test]
fn the_two_proxies_of_compose_share_their_limit() {
    let (redis, upstream) = (RedisServer::start(), Upstream::replying(SERVED));
    let yaml = here(
        &text("compose/proxy.yaml"),
        &[
            ("\":8080\"", "127.0.0.1:0"),
            ("\":9901\"", "127.0.0.1:0"),
            ("http://upstream:8080", &upstream.url()),
            ("/run/secrets/tollgate-admin-token", &deploy("compose/admin-token").display().to_string()),
            // This machine may be busy.
            ("redis: { url: ", "redis: { timeout: 2s, url: "),
        ],
    );
    is_valid(&yaml);
    let proxies = [0, 1].map(|_| Tollgate::start_with(&yaml, &[("REDIS_URL", &redis.url())]));
    for proxy in &proxies {
        counts_in_redis(proxy, text("compose/admin-token").trim());
    }
    let mut clients = proxies.each_ref().map(|proxy| Client::connect(proxy.address("web")));
    let begun = Instant::now();
    let (mut allowed, mut denied) = ([0_u64; 2], [0_u64; 2]);
    for turn in 0..80 {
        match clients[turn % 2].get("/").status {
            200 => allowed[turn % 2] += 1,
            429 => denied[turn % 2] += 1,
            status => panic!("status {status}"),
        }
    }
    // 20 at once and two a second, of both together.
    let most = 20 + 2 * (begun.elapsed().as_secs() + 1);
    assert!((20..=most).contains(&allowed.iter().sum()), "{allowed:?} of at most {most}");
    assert!(denied.iter().all(|count| *count > 0), "{denied:?}");
}

/// The kustomization with everything, as Kubernetes gets it.
fn kustomized() -> (String, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    copy(&deploy("kubernetes"), directory.path());
    let all = directory.path().join("all");
    std::fs::create_dir(&all).unwrap();
    std::fs::write(all.join("kustomization.yaml"), "resources: [../redis]\ncomponents: [../servicemonitor]\n").unwrap();
    let text = accepts(tool("kubectl").arg("kustomize").arg(&all));
    let documents = documents(&text);
    (text, documents)
}

/// The schemas of Kubernetes know every resource but the operator's, and no key too many.
#[track_caller]
fn is_kubernetes(text: &str, resources: usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.yaml");
    std::fs::write(&path, text).unwrap();
    let judged = judge(tool("kubernetes-validate").arg("--strict").arg(&path));
    let said = format!("{}{}", judged.output, judged.errors);
    assert!(judged.content, "{said}");
    let unknown: Vec<_> = said.lines().filter(|line| line.starts_with("WARN")).collect();
    assert!(unknown.iter().all(|line| line.contains("ServiceMonitor")), "{unknown:?}");
    assert_eq!(said.matches(" passed for resource ").count() + unknown.len(), resources, "{said}");
}

/// What holds of the pods, whoever wrote their Deployment.
#[track_caller]
fn pods_are_confined(deployment: &Value) {
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    assert!(container["resources"]["requests"]["cpu"].is_string(), "the autoscaler computes with it");
    assert!(container["resources"]["limits"]["memory"].is_string());
}

/// A selector that takes these pods, and would not take others.
#[track_caller]
fn selects(selector: &Value, deployment: &Value) {
    let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    let wanted = selector.get("matchLabels").unwrap_or(selector).as_object().unwrap();
    assert!(wanted.contains_key("app.kubernetes.io/name"), "it takes every pod: {selector}");
    assert!(wanted.iter().all(|(name, value)| labels.get(name) == Some(value)), "{selector} of {labels:?}");
}

/// Probes ask the admin port, and the pod has the time that its configuration takes to end.
#[track_caller]
fn fits_the_configuration(deployment: &Value, config: &Value) {
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    for (probe, path) in [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
    let port = |name: &str| {
        let ports = container["ports"].as_array().unwrap();
        ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].to_string()
    };
    assert_eq!(config["listeners"]["web"]["address"], format!(":{}", port("http")));
    assert_eq!(config["admin"]["address"], format!(":{}", port("admin")));
    let seconds = |value: &Value| value.as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    let ends = seconds(&config["shutdown"]["delay"]) + seconds(&config["shutdown"]["grace"]);
    let given = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(given > ends, "{given} s for {ends} s");
}

#[test]
fn the_kustomization_is_valid_and_its_parts_fit() {
    let (text, documents) = kustomized();
    is_kubernetes(&text, 11);
    let deployment = resource(&documents, "Deployment", "tollgate");
    pods_are_confined(deployment);
    pods_are_confined(resource(&documents, "Deployment", "redis"));
    selects(&deployment["spec"]["selector"], deployment);
    selects(&resource(&documents, "PodDisruptionBudget", "tollgate")["spec"]["selector"], deployment);
    selects(&resource(&documents, "NetworkPolicy", "tollgate")["spec"]["podSelector"], deployment);
    selects(&resource(&documents, "Service", "tollgate")["spec"]["selector"], deployment);
    let admin = resource(&documents, "Service", "tollgate-admin");
    selects(&admin["spec"]["selector"], deployment);
    let monitor = &resource(&documents, "ServiceMonitor", "tollgate")["spec"];
    let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
    assert!(wanted.iter().all(|(name, value)| &admin["metadata"]["labels"][name] == value), "{wanted:?}");
    assert_eq!(monitor["endpoints"][0]["port"], admin["spec"]["ports"][0]["name"]);
    let redis = resource(&documents, "NetworkPolicy", "redis");
    selects(&redis["spec"]["ingress"][0]["from"][0]["podSelector"], deployment);
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &format!("tollgate:{VERSION}"));
    let scaled = &resource(&documents, "HorizontalPodAutoscaler", "tollgate")["spec"];
    assert_eq!(scaled["scaleTargetRef"]["name"], "tollgate");
    assert_eq!(deployment["spec"]["replicas"], Value::Null, "the autoscaler's number would be reset");
    fits_the_configuration(deployment, &serde_yaml::from_str(&config_map(&documents)).unwrap());
}

/// proxy.yaml of the generated `ConfigMap`, which the Deployment mounts.
fn config_map(documents: &[Value]) -> String {
    let deployment = resource(documents, "Deployment", "tollgate");
    let volume = &deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"];
    let map = resource(documents, "ConfigMap", volume.as_str().unwrap());
    map["data"]["proxy.yaml"].as_str().unwrap().to_owned()
}

#[test]
fn the_redis_of_kubernetes_lets_its_proxies_decide_and_nobody_else_in() {
    let (_, documents) = kustomized();
    let container = &resource(&documents, "Deployment", "redis")["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<_> = container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let line = text("redis/users.acl").lines().find(|line| line.starts_with("user tollgate ")).unwrap().to_owned();
    let user = line.strip_prefix("user ").unwrap().replace("<password>", "$(REDIS_PASSWORD)");
    assert!(arguments.join(" ").ends_with(&format!(" --user {user}")), "{arguments:?} has the line of users.acl");

    let arguments: Vec<_> = arguments.iter().map(|word| word.replace("$(REDIS_PASSWORD)", "open-sesame")).collect();
    let redis = RedisServer::start_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(redis.cli(&["GET", "x"]).contains("NOAUTH"), "the user `default` is off");
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::replying(SERVED));
    let yaml = here(
        &config_map(&documents),
        &[
            ("\":8080\"", "127.0.0.1:0"),
            ("\":9901\"", "127.0.0.1:0"),
            ("http://app:3000", &upstream.url()),
            ("/run/secrets/tollgate-redis/password", &secret(directory.path(), "password", "open-sesame\n")),
            ("/run/secrets/tollgate-admin/token", &secret(directory.path(), "token", "a-token")),
            ("rate: 100/s\n    burst: 200", "rate: 2/h"),
            // This machine may be busy.
            ("username: tollgate\n", "username: tollgate\n    timeout: 2s\n"),
        ],
    );
    let proxy = Tollgate::start_with(&yaml, &[("TOLLGATE_REDIS_URL", &redis.url())]);
    counts_in_redis(&proxy, "a-token");
    let mut client = Client::connect(proxy.address("web"));
    let statuses = [(); 3].map(|()| client.get("/").status);
    assert_eq!(statuses, [200, 200, 429], "counted in Redis, whose answer is no error: {:?}", proxy.log());
    let degraded = proxy.log().iter().any(|line| line.contains("noperm") || line.contains("redis is away"));
    assert!(!degraded, "{:?}", proxy.log());
}

fn helm(arguments: &[&str]) -> std::process::Command {
    let mut command = tool("helm");
    command.args(arguments).arg(deploy("helm/tollgate"));
    command
}

const EVERYTHING: &str = "autoscaling.enabled=true,podDisruptionBudget.enabled=true,networkPolicy.enabled=true,\
                          serviceMonitor.enabled=true,redis.url=redis://redis:6379/0,redis.username=tollgate,\
                          redis.existingSecret=tollgate-redis,service.type=LoadBalancer";

#[test]
fn the_chart_renders_what_kubernetes_understands() {
    accepts(&mut helm(&["lint", "--strict"]));
    for (set, resources) in [("replicas=1", 5), (EVERYTHING, 9)] {
        let text = accepts(helm(&["template", "edge"]).args(["--set", set]));
        is_kubernetes(&text, resources);
        let documents = documents(&text);
        let deployment = resource(&documents, "Deployment", "edge-tollgate");
        pods_are_confined(deployment);
        for service in ["edge-tollgate", "edge-tollgate-admin"] {
            selects(&resource(&documents, "Service", service)["spec"]["selector"], deployment);
        }
        let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, &format!("tollgate:{VERSION}"));
        let config = resource(&documents, "ConfigMap", "edge-tollgate")["data"]["proxy.yaml"].as_str().unwrap();
        fits_the_configuration(deployment, &serde_yaml::from_str(config).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let token = secret(directory.path(), "token", "a-token");
        let password = secret(directory.path(), "password", "a-password");
        is_valid(
            &config
                .replace("/run/secrets/tollgate-admin/token", &token)
                .replace("/run/secrets/tollgate-redis/password", &password),
        );
        assert_eq!(config.contains("redis://redis:6379/0"), set == EVERYTHING, "{config}");
        if set == EVERYTHING {
            selects(&resource(&documents, "PodDisruptionBudget", "edge-tollgate")["spec"]["selector"], deployment);
            selects(&resource(&documents, "NetworkPolicy", "edge-tollgate")["spec"]["podSelector"], deployment);
        }
    }
}

#[test]
fn the_chart_refuses_what_would_not_limit() {
    for (set, words) in [
        ("replicas=2", "set redis.url"),
        ("autoscaling.enabled=true", "set redis.url"),
        ("config.admin=none", "config.admin is written by the chart"),
        ("redis.url=redis://r,config.store=memory", "exclude each other"),
    ] {
        let refused = judge(helm(&["template", "edge"]).args(["--set", set]));
        assert!(!refused.content && refused.errors.contains(words), "{set}: {}{}", refused.output, refused.errors);
    }
    accepts(helm(&["template", "edge"]).args(["--set", "replicas=2,config.store.redis.url=redis://r"]));
}

/// The units in a folder of their own, with a program that is there.
fn units(change: impl Fn(String) -> String) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["tollgate.service", "tollgate.socket"] {
        let unit = text(&format!("systemd/{name}")).replace("/usr/bin/tollgate", env!("CARGO_BIN_EXE_tollgate"));
        std::fs::write(directory.path().join(name), change(unit)).unwrap();
    }
    directory
}

#[test]
fn the_units_are_sound_and_confined() {
    let kept = units(|unit| unit);
    let [service, socket] = ["tollgate.service", "tollgate.socket"].map(|name| kept.path().join(name));
    let said = judge(tool("systemd-analyze").arg("verify").arg(&service).arg(&socket));
    assert!(said.content && said.errors.is_empty(), "{}{}", said.output, said.errors);
    let exposure = |service: &Path| {
        let mut command = tool("systemd-analyze");
        command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(service);
        judge(&mut command)
    };
    let judged = exposure(&service);
    assert!(judged.content, "above 2.0: {}{}", judged.output, judged.errors);
    let open = units(|unit| unit.replace("CapabilityBoundingSet=\n", "").replace("DynamicUser=yes\n", ""));
    assert!(!exposure(&open.path().join("tollgate.service")).content, "the threshold is one");
}

#[test]
fn the_socket_is_that_of_a_listener_of_the_packaged_configuration() {
    let unit = text("systemd/tollgate.socket");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let packaged: Value = serde_yaml::from_str(::tollgate::cli::init::USUAL).unwrap();
    let listener = &packaged["listeners"][value("FileDescriptorName=")];
    assert_eq!(listener["address"], format!(":{}", value("ListenStream=")));
}

#[test]
fn the_package_has_what_its_metadata_names() {
    let mut command = std::process::Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
    let metadata = accepts(command.current_dir(repository()));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let deb = &metadata["packages"][0]["metadata"]["deb"];
    let mut targets = Vec::new();
    for asset in deb["assets"].as_array().unwrap() {
        let [from, to] = [0, 1].map(|index| asset[index].as_str().unwrap());
        assert!(from == "target/release/tollgate" || repository().join(from).exists(), "{from}");
        let name = Path::new(from).file_name().unwrap().to_str().unwrap();
        targets.push(if to.ends_with('/') { format!("/{to}{name}") } else { format!("/{to}") });
    }
    assert!(targets.contains(&"/usr/bin/tollgate".to_owned()), "where the unit starts it: {targets:?}");
    for file in deb["conf-files"].as_array().unwrap() {
        assert!(targets.iter().any(|target| file == target), "{file} of {targets:?}");
    }
    let folder = repository().join(deb["systemd-units"]["unit-scripts"].as_str().unwrap());
    assert!(folder.join("tollgate.service").exists() && folder.join("tollgate.socket").exists());
    let scripts = repository().join(deb["maintainer-scripts"].as_str().unwrap());
    for script in ["postinst", "prerm", "postrm"] {
        let text = std::fs::read_to_string(scripts.join(script)).unwrap();
        assert!(text.contains("\n#DEBHELPER#\n"), "{script} has a place for what reloads systemd");
    }
}
