// Preloaded where an example runs: fetch finds the hosts that the example names at the addresses that HOSTS gives, as /etc/hosts would.
const hosts = (process.env.HOSTS ?? '').split(' ').map((pair) => pair.split('='));
const real = globalThis.fetch;

globalThis.fetch = (url, init) => {
  for (const [name, address] of hosts) if (name && url.startsWith(`${name}/`)) url = address + url.slice(name.length);
  return real(url, init);
};
