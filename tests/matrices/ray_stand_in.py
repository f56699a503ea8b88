"""A stand-in for Ray: nodes with resources, on which tasks are placed in order and run in threads."""

import collections
import concurrent.futures
import threading

NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


class StandIn:
    """`ray`, as far as the engine uses it. nodes: the resources of each. placed: node -> names of its tasks.
    least: what was left of the resources of each node at its busiest."""

    def __init__(self, nodes):
        self._nodes, self._free = nodes, [dict(node) for node in nodes]
        self._waiting, self._lock = collections.deque(), threading.RLock()
        self._threads = concurrent.futures.ThreadPoolExecutor(len(nodes) * 8)
        self.placed, self.least = collections.defaultdict(list), [dict(node) for node in nodes]

    def nodes(self):
        return [{"Alive": True, "Resources": dict(node)} for node in self._nodes]

    def remote(self, function):
        return _Function(self, function, {})

    def submit(self, function, options, arguments):
        task = concurrent.futures.Future()
        wanted = {NAMES[key]: value for key, value in options.items() if key in NAMES}
        with self._lock:
            self._waiting.append((task, wanted, options["name"], function, arguments))
            self._place()
        return task

    def _place(self):
        """Start the first of the tasks that wait, while a node has what it wants."""
        while self._waiting:
            task, wanted, name, function, arguments = self._waiting[0]
            able = [
                number
                for number, free in enumerate(self._free)
                if all(free.get(key, 0) >= amount for key, amount in wanted.items())
            ]
            if not able:
                return
            self._waiting.popleft()
            self._take(able[0], wanted, -1)
            self.placed[able[0]].append(name)
            self._threads.submit(self._run, able[0], wanted, task, function, arguments)

    def _take(self, number, wanted, sign):
        free, least = self._free[number], self.least[number]
        for key, amount in wanted.items():
            free[key] = free.get(key, 0) + sign * amount
            least[key] = min(least.get(key, 0), free[key])

    def _run(self, number, wanted, task, function, arguments):
        try:
            task.set_result(function(*arguments))
        except Exception as error:
            task.set_exception(error)
        with self._lock:
            self._take(number, wanted, 1)
            self._place()

    def wait(self, references, timeout):
        done = [each for each in references if each.done()]
        return done, [each for each in references if not each.done()]

    def get(self, reference):
        return reference.result()

    def cancel(self, reference, force):
        with self._lock:
            for entry in list(self._waiting):
                if entry[0] is reference:
                    self._waiting.remove(entry)
                    reference.set_exception(RuntimeError("cancelled"))


class _Function:
    def __init__(self, cluster, function, options):
        self._cluster, self._function, self._options = cluster, function, options

    def options(self, **options):
        return _Function(self._cluster, self._function, options)

    def remote(self, *arguments):
        return self._cluster.submit(self._function, self._options, arguments)
