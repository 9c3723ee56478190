const dark = matchMedia('(prefers-color-scheme: dark)').matches, ink = dark ? '#c9d1d9' : '#3a4652';
const config = {background: 'transparent', font: 'system-ui, sans-serif', view: {stroke: null},
  axis: {labelColor: ink, titleColor: ink, gridColor: dark ? '#2b343d' : '#e6e8ea', domainColor: ink, tickColor: ink},
  legend: {labelColor: ink, titleColor: ink}};
for (const [name, spec] of Object.entries(JSON.parse(document.getElementById('specs').textContent)))
  vegaEmbed('#chart-' + name, {...spec, config, autosize: {type: 'fit-x', contains: 'padding'}}, {actions: false, renderer: 'svg'});
