"""The Kubernetes manifest and the Containerfile say what the program needs: probes, times, memory, libraries."""
import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parent.parent
PHOTON = os.environ["PHOTON"]


def mebibytes(text):
    return int(re.match(r"\d+", text)[0]) * {"Mi": 1, "MiB": 1, "Gi": 1024, "GiB": 1024}[text.lstrip("0123456789")]


class Kubernetes(unittest.TestCase):
    def setUp(self):
        documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
        self.of_kind = {document["kind"]: document for document in documents}
        self.assertEqual(len(self.of_kind), len(documents))
        self.deployment = self.of_kind["Deployment"]["spec"]
        self.pod = self.deployment["template"]["spec"]
        self.container, = self.pod["containers"]
        self.flags = dict(argument.removeprefix("--").split("=") for argument in self.container["args"])

    def test_kinds_have_their_versions(self):
        self.assertEqual({kind: document["apiVersion"] for kind, document in self.of_kind.items()},
                         {"Deployment": "apps/v1", "Service": "v1", "PodDisruptionBudget": "policy/v1"})

    def test_selectors_find_the_replicas(self):
        labels = self.deployment["template"]["metadata"]["labels"]
        self.assertEqual(self.deployment["selector"]["matchLabels"], labels)
        self.assertEqual(self.of_kind["Service"]["spec"]["selector"], labels)
        self.assertEqual(self.of_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"], labels)

    def test_one_port_everywhere(self):
        port, = self.container["ports"]
        self.assertEqual(str(port["containerPort"]), self.flags["port"])
        service_port, = self.of_kind["Service"]["spec"]["ports"]
        self.assertEqual(service_port["targetPort"], port["name"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.assertEqual(self.container[probe]["httpGet"], {"path": "/health", "port": port["name"]})

    def test_running_answers_have_their_drain_timeout(self):
        pause = int(self.container["lifecycle"]["preStop"]["exec"]["command"][1])
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"],
                                pause + int(self.flags["drain-timeout"]) + 5)

    def test_memory_holds_the_caches_and_the_program(self):
        resources = self.container["resources"]
        self.assertEqual(resources["requests"]["memory"], resources["limits"]["memory"])
        self.assertGreaterEqual(mebibytes(resources["limits"]["memory"]), mebibytes(self.flags["memory"]) + 512)
        self.assertEqual(resources["requests"]["cpu"], self.flags["threads"])

    def test_flags_are_those_of_the_program(self):
        help_text = subprocess.run([PHOTON, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        for flag in self.flags:
            self.assertRegex(help_text, rf"--{flag}\b")

    def test_a_replica_stays_when_others_go(self):
        self.assertLess(self.of_kind["PodDisruptionBudget"]["spec"]["minAvailable"], self.deployment["replicas"])
        self.assertEqual(self.deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0)


class Containerfile(unittest.TestCase):
    def setUp(self):
        self.build, self.runtime = (DEPLOY / "Containerfile").read_text().split("\nFROM ")[1:]

    def test_copies_what_exists(self):
        for line in re.findall(r"^COPY (?!--)(.*)$", self.build + self.runtime, re.M):
            *sources, _ = line.split()
            for source in sources:
                self.assertTrue((DEPLOY.parent / source).exists(), source)

    @unittest.skipUnless(shutil.which("dpkg-query") and shutil.which("readelf"), "not a Debian system")
    def test_has_the_libraries_that_the_program_is_linked_to(self):
        dynamic = subprocess.run(["readelf", "-d", PHOTON], capture_output=True, text=True, check=True).stdout
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        self.assertTrue(needed)
        in_every_image = {"libc6", "libstdc++6", "libgcc-s1"}
        found = subprocess.run(["dpkg-query", "-S", *(f"*/{library}" for library in needed)],
                               capture_output=True, text=True).stdout
        for library in needed:
            packages = {line.split(":")[0] for line in found.splitlines() if line.endswith("/" + library)}
            self.assertTrue(packages & (in_every_image | set(self.runtime.split())), f"{library} of {packages}")


if __name__ == "__main__":
    unittest.main()
