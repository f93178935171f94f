"""deploy/: what can be held of images, units and dashboards without running them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from configparser import ConfigParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from haast.cli.serve import command
from haast.serve.server import Listening

from .serve.api.conftest import Api
from .serve.api.spoken import SPECIAL, message, says

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "haast.json").read_text())
VARIABLES = {f"HAAST_{option.name.upper()}" for option in command.params} | {"HAAST_API_KEY"}
NAMED = re.compile(r"(?:\w+/)?[\w./-]+:[\w.-]+")


def read(name: str):
    return yaml.safe_load((DEPLOY / name).read_text())


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order, lines joined."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    every = instructions()
    return every[max(at for at, (name, _) in enumerate(every) if name == "FROM") :]


def values(name: str, of: list[tuple[str, str]]) -> list[str]:
    return [value for word, value in of if word == name]


def test_images_are_named_with_a_version():
    images = [line.split()[0] for line in values("FROM", instructions())]
    images += [s["image"] for s in read("compose.yaml")["services"].values() if "build" not in s]
    assert len(images) == 4
    for image in images:
        assert NAMED.fullmatch(image) and not image.endswith(":latest")
        assert re.search(r"\d+\.\d+", image.split(":")[1])


def test_the_image_has_no_root_no_compiler_and_loads_nothing_when_it_runs():
    last = last_stage()
    (user,) = values("USER", last)
    assert all(int(number) > 0 for number in user.split(":"))
    assert not re.search(r"apt|pip install|curl|wget", " ".join(values("RUN", last)))
    assert not values("ADD", instructions())
    (entry,) = values("ENTRYPOINT", last)
    assert json.loads(entry) == ["haast", "serve"] and values("STOPSIGNAL", last) == ["SIGTERM"]
    settings = dict(pair.split("=", 1) for pair in " ".join(values("ENV", last)).split())
    assert settings["HF_HUB_OFFLINE"] == "1" and settings["HAAST_PORT"] == "8000"
    assert {name for name in settings if name.startswith("HAAST_")} <= VARIABLES
    assert values("EXPOSE", last) == ["8000"]


def test_the_build_is_tidy_and_has_what_it_copies():
    for run in values("RUN", instructions()):
        if "apt-get install" in run:
            assert "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists/*" in run
            assert run.index("apt-get update") < run.index("apt-get install")
        if "pip install" in run:
            assert "--no-cache-dir" in run
    local = [v for v in values("COPY", instructions()) if not v.startswith("--from")]
    sources = {source for value in local for source in value.split()[:-1]}
    assert all((ROOT / source).exists() for source in sources)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore and sources == {line[1:] for line in ignore if line.startswith("!")}


@pytest.mark.parametrize("status, code", [(200, 0), (503, 1)])
def test_the_health_check_asks_the_engine(status, code):
    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    (check,) = values("HEALTHCHECK", last_stage())
    options, _, words = check.partition(" CMD ")
    program, *arguments = json.loads(words)
    assert program == "python" and "--start-period" in options
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        environment = {"HAAST_PORT": str(server.server_port)}
        ran = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True)
    assert ran.returncode == code, ran.stderr


def test_compose():
    document = read("compose.yaml")
    assert document.keys() == {"name", "services", "volumes"}
    services = document["services"]
    assert services.keys() == {"haast", "prometheus", "grafana"}
    haast = services["haast"]
    assert (DEPLOY / haast["build"]["context"] / haast["build"]["dockerfile"]).is_file()
    (device,) = haast["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert haast["environment"].keys() <= VARIABLES
    assert haast["environment"]["HAAST_API_KEY"].startswith("${HAAST_API_KEY:?"), (
        "a key is asked for"
    )
    assert haast["read_only"] and haast["cap_drop"] == ["ALL"] and haast["tmpfs"] == ["/tmp"]
    assert int(haast["stop_grace_period"].removesuffix("s")) > Listening.shutdown_s
    model, *flags = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in haast["command"]]
    assert command.make_context("serve", [model, *flags]).params["models"] == ("gpt-oss-20b",)
    mounts = [v.split(":")[0] for s in services.values() for v in s["volumes"]]
    assert all((DEPLOY / mount).exists() for mount in mounts if mount.startswith("./"))
    assert {m for m in mounts if re.fullmatch(r"\w+", m)} == document["volumes"].keys()


def test_prometheus_finds_haast_and_grafana_finds_prometheus():
    (job,) = read("prometheus.yml")["scrape_configs"]
    assert (
        job["static_configs"] == [{"targets": ["haast:8000"]}] and job["metrics_path"] == "/metrics"
    )
    (source,) = read("grafana/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    named = re.findall(r'"uid": "(\w+)"', json.dumps(DASHBOARD["panels"]))
    assert set(named) == {source["uid"]}
    (provider,) = read("grafana/dashboards/haast.yaml")["providers"]
    mounts = read("compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


def expressions() -> list[str]:
    variables = [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    return [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]] + variables


def test_every_metric_and_label_of_the_dashboard_is_exported():
    api = Api(says([*message("odd", "x y"), SPECIAL.return_]))
    api.chat(max_tokens=5)
    families = text_string_to_metric_families(api.http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    exported, labels = {s.name for s in samples}, {name for s in samples for name in s.labels}
    text = " ".join(expressions())
    used = set(re.findall(r"\b(?:vllm|haast):\w+", text))
    assert len(used) >= 15 and used <= exported
    by = set(re.findall(r"by \((\w+)\)", text)) | set(re.findall(r"(\w+)=~", text))
    assert by == {"le", "kind", "finished_reason", "model_name"} and by <= labels
    for counter in (name for name in used if name.endswith("_total")):
        assert re.search(rf"rate\({counter}\{{", text), f"{counter} only ever grows"


def test_panels_have_places_of_their_own():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert len({(p["x"], p["y"]) for p in places}) == len(places) >= 10
    assert all(p["x"] % p["w"] == p["y"] % p["h"] == 0 and p["x"] + p["w"] <= 24 for p in places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


@pytest.fixture(scope="module")
def unit():
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / "haast.service").read_text())
    return parser


def test_the_unit_lets_open_requests_end(unit):
    service = unit["Service"]
    assert service["KillSignal"] == "SIGTERM" and service["KillMode"] == "mixed"
    drain_s = read("serve.yaml")["shutdown-timeout"]
    assert int(service["TimeoutStopSec"]) > drain_s == Listening.shutdown_s
    assert service["Restart"] == "on-failure" and unit["Install"]["WantedBy"]


def test_the_unit_is_hardened(unit):
    service = unit["Service"]
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "ProtectKernelModules"):
        assert service[name] == "yes"
    assert service["DynamicUser"] == "yes" and service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == "" and service["DevicePolicy"] == "closed"


def test_the_unit_starts_haast_with_the_example(unit, tmp_path):
    program, name, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert (program, name) == ("/opt/haast/bin/haast", "serve")
    assert arguments == ["--config-file", "/etc/haast/serve.yaml"]
    options = command.make_context(name, ["--config-file", str(DEPLOY / "serve.yaml")]).params
    assert options["models"] == ("gpt-oss-20b",) and options["host"] == "127.0.0.1"
    assert options["model_path"] == Path("/srv/models/gpt-oss-20b")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    text = (DEPLOY / "haast.service").read_text().replace("/opt/haast/bin/haast", sys.executable)
    (tmp_path / "haast.service").write_text(text)
    verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "haast.service")]
    ran = subprocess.run(verify, capture_output=True, text=True)
    told = [line for line in (ran.stdout + ran.stderr).splitlines() if "haast.service" in line]
    assert ran.returncode == 0 and told == []
