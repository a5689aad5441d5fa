// What fewshot's repairs of OHIF's MONAI Label mode call. Plain JavaScript: it is served as it is.
(() => {
  'use strict';

  const SEGMENTATION = '1'; // the one that the MONAI Label panel makes
  const IDLE_MS = 5000;
  const TRAINING_MS = 1000;
  const UNNAMED = /^(segment[ _]?\d*)?$/i;

  let panel = null; // the MONAI Label panel; OHIF unmounts it while another tab is shown
  let mounted = false;
  let timer = null;
  let training = false; // whether a training ran when we looked last
  const watched = new Set(); // the trainings that were seen to run

  const services = () => panel.props.servicesManager.services;
  const url = path => new URL(path, panel.client().server_url).toString();

  function notify(message, type = 'info', duration = 5000) {
    services().uiNotificationService.show({ title: 'MONAI Label', message, type, duration });
  }

  async function ask(path, options = {}) {
    const answer = await fetch(url(path), options);
    const text = await answer.text();
    let content = text;
    try {
      content = JSON.parse(text);
    } catch {
      // not JSON: a proxy's page, or plain text
    }
    if (!answer.ok) {
      throw new Error(sentence(content) || `${answer.status} ${answer.statusText}`);
    }
    return content;
  }

  function sentence(content) {
    const detail = content && typeof content === 'object' ? content.detail : null;
    return typeof detail === 'string' ? detail : '';
  }

  // The server's sentence in a failed answer of the panel's own client (axios), which may hold it as bytes.
  function reason(response, otherwise) {
    const data = response && response.response ? response.response.data : null;
    let content = data;
    if (data instanceof ArrayBuffer) {
      try {
        content = JSON.parse(new TextDecoder().decode(data));
      } catch {
        content = null;
      }
    }
    return sentence(content) || otherwise;
  }

  function hasSample(response) {
    if (response.data && response.data.StudyInstanceUID) {
      return true;
    }
    notify('All studies are labelled: there is no next sample.');
    return false;
  }

  // The panel's tables of models and labels, as it makes them when it connects.
  function tables(data) {
    const models = Object.keys(data.models).filter(model =>
      ['deepgrow', 'deepedit', 'vista3d', 'segmentation'].includes(data.models[model].type)
    );
    const made = { modelLabelToIdxMap: {}, modelIdxToLabelMap: {}, modelLabelNames: {}, modelLabelIndices: {} };
    const all = new Set(data.labels);
    for (const model of models) {
      const given = data.models[model].labels;
      const pairs = Array.isArray(given) ? given.map((label, index) => [label, index + 1]) : Object.entries(given);
      made.modelLabelToIdxMap[model] = Object.fromEntries(pairs);
      made.modelIdxToLabelMap[model] = Object.fromEntries(pairs.map(([label, index]) => [index, label]));
      made.modelLabelNames[model] = pairs.map(([label]) => label).sort();
      made.modelLabelIndices[model] = pairs.map(([, index]) => index);
      pairs.forEach(([label]) => all.add(label));
    }
    return { ...made, models, labels: [...all].sort() };
  }

  // Bright colours, by a label's number at the server, which never changes: numbers that follow each other differ most.
  function colour(label) {
    const known = Object.values(panel.state.info.modelLabelToIdxMap || {}).find(map => map[label]);
    const number = known ? known[label] : [...label].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 997, 7);
    const hue = (number * 137.508) % 360;
    const part = shift => {
      const k = (shift + hue / 30) % 12;
      return Math.round(255 * (0.6 - 0.36 * Math.max(-1, Math.min(k - 3, 9 - k, 1)))); // HSL with S = 0.9, L = 0.6
    };
    return { r: part(0), g: part(8), b: part(4) };
  }

  // The voxel of a segment that is nearest to its middle, as OHIF tells centres; nothing where it is not drawn.
  function middle(volume, segmentIndex) {
    if (!volume || !volume.voxelManager) {
      return undefined;
    }
    const all = volume.voxelManager.getCompleteScalarDataArray();
    const [width, height] = volume.dimensions;
    const place = index => [index % width, Math.floor(index / width) % height, Math.floor(index / (width * height))];
    const own = [];
    for (let index = 0; index < all.length; index += 1) {
      if (all[index] === segmentIndex) {
        own.push(index);
      }
    }
    if (!own.length) {
      return undefined;
    }
    const mean = [0, 0, 0];
    own.forEach(index => place(index).forEach((value, axis) => (mean[axis] += value / own.length)));
    let [best, least] = [own[0], Infinity];
    for (const index of own) {
      const away = place(index).reduce((sum, value, axis) => sum + (value - mean[axis]) ** 2, 0);
      if (away < least) {
        [best, least] = [index, away];
      }
    }
    const image = place(best);
    return { image, world: volume.imageData.indexToWorld(image) };
  }

  // The segments as they are now, with the colours that the panel shows; it makes its own segmentation.
  function segments(segmentations) {
    const own = segmentations.find(each => each.segmentationId === SEGMENTATION);
    const all = Object.values((own && own.segments) || {}).filter(Boolean);
    return Object.fromEntries(
      all.map(segment => [segment.segmentIndex, { ...segment, color: panel.segmentColor(segment.label) }])
    );
  }

  const ownSegments = segmentation => Object.values(segmentation.segments).filter(Boolean);

  // Give labels a segment each, and leave the one active with which somebody may be painting.
  function addSegments(labels) {
    const { segmentationService } = services();
    const segmentation = segmentationService.getSegmentation(SEGMENTATION);
    if (!segmentation) {
      return;
    }
    const there = ownSegments(segmentation);
    const active = there.find(segment => segment.active);
    let next = Math.max(0, ...there.map(segment => segment.segmentIndex)) + 1;
    for (const label of labels.filter(each => !there.some(segment => segment.label === each))) {
      segmentationService.addSegment(SEGMENTATION, { label, segmentIndex: next, color: panel.segmentColor(label) });
      next += 1;
    }
    if (active) {
      segmentationService.setActiveSegment(SEGMENTATION, active.segmentIndex);
    }
  }

  // The viewports that show the panel's segmentation.
  function viewportsWithSegments() {
    const { segmentationService, viewportGridService } = services();
    return [...viewportGridService.getState().viewports.keys()].filter(
      viewport => segmentationService.getSegmentationRepresentations(viewport, { segmentationId: SEGMENTATION }).length
    );
  }

  // Give labels the same colours in all viewports; the panel does so in the active one only.
  function paint(labels) {
    const { segmentationService } = services();
    const segmentation = segmentationService.getSegmentation(SEGMENTATION);
    for (const segment of segmentation ? ownSegments(segmentation) : []) {
      if (labels.includes(segment.label)) {
        for (const viewport of viewportsWithSegments()) {
          const color = panel.segmentColor(segment.label);
          segmentationService.setSegmentColor(viewport, SEGMENTATION, segment.segmentIndex, color);
        }
      }
    }
  }

  // After the panel has connected, which adds its segmentation to the viewports a second later, or later still.
  function paintSoon(tries = 20) {
    setTimeout(() => {
      if (viewportsWithSegments().length) {
        addSegments(panel.state.info.labels);
        paint(panel.state.info.labels);
      } else if (tries > 0) {
        paintSoon(tries - 1);
      }
    }, 1500);
  }

  // The labels of a result, each with a segment to go to; a result by points without a chosen label is of the active one.
  function present(labels) {
    const { segmentationService } = services();
    const segmentation = segmentationService.getSegmentation(SEGMENTATION);
    const active = segmentation && ownSegments(segmentation).find(segment => segment.active);
    const named = labels.map(label => label || (active ? active.label : 'Segment 1'));
    addSegments(named);
    for (const viewport of viewportsWithSegments()) {
      segmentationService.setActiveSegmentation(viewport, SEGMENTATION); // it is the one to correct and to submit
    }
    return named;
  }

  function setInfo(info) {
    if (mounted) {
      panel.setState({ info });
    } else {
      panel.state.info = info; // for the panel's next mounting
    }
  }

  async function refresh() {
    const data = await ask('info/');
    const made = tables(data);
    const before = panel.state.info.labels || [];
    setInfo({ ...panel.state.info, ...made, data });
    const learned = made.labels.filter(label => !before.includes(label));
    if (learned.length) {
      addSegments(learned);
      paint(learned);
    }
    return data;
  }

  function tellEnd(tasks) {
    const failed = tasks.find(task => task.status === 'ERROR');
    if (failed) {
      notify(`The training failed. ${(failed.details || []).slice(-1)[0] || ''}`, 'error', 15000);
    } else if (tasks.some(task => task.status === 'STOPPED')) {
      notify('The training was stopped: the model is the one from before.');
    } else if (tasks.length) {
      notify('The model is trained: run it again to see what it finds now.', 'success', 8000);
    }
  }

  // A training writes its total time when it ends.
  function trains(data) {
    const [latest] = Object.values(data.train_stats || {});
    return Boolean(latest && latest.start_ts && !latest.total_time);
  }

  async function look() {
    const data = await refresh();
    let runs = false;
    if (training || trains(data)) {
      const tasks = await ask('train/?all=true').catch(() => []); // a training of another server is none of its tasks
      const unfinished = tasks.filter(task => ['SUBMITTED', 'RUNNING'].includes(task.status));
      unfinished.forEach(task => watched.add(task.id));
      runs = unfinished.length > 0;
      if (training && !runs) {
        // one that failed at once was never seen to run
        tellEnd(watched.size ? tasks.filter(task => watched.has(task.id)) : tasks.slice(-1));
        watched.clear();
      }
    }
    const trainer = panel.actions.activelearning.current;
    if (trainer && trainer.state.training !== runs) {
      trainer.setState({ training: runs });
    }
    training = runs;
  }

  async function keepLooking() {
    clearTimeout(timer);
    if (!mounted && !services().segmentationService.getSegmentation(SEGMENTATION)) {
      return; // the mode was left; `opened` begins again
    }
    if (panel.state.isDataReady && !document.hidden) {
      await look().catch(error => console.warn('MONAI Label:', error.message));
    }
    timer = setTimeout(keepLooking, training ? TRAINING_MS : IDLE_MS);
  }

  function follow() {
    training = true;
    keepLooking();
  }

  // Called when the panel appears: for the first time in a study, or back from another tab.
  function opened(newPanel) {
    const before = panel;
    panel = newPanel;
    mounted = true;
    panel.componentWillUnmount = () => {
      mounted = false;
    };
    panel.componentDidUpdate = (_, old) => {
      if (panel.state.info.initialSegs !== old.info.initialSegs) {
        paintSoon();
      }
    };
    if (before && before.state.isDataReady && services().segmentationService.getSegmentation(SEGMENTATION)) {
      panel.serverURI = before.serverURI; // what it asks while another tab is shown
      panel.setState(before.state);
    }
    clearTimeout(timer);
    timer = setTimeout(keepLooking, TRAINING_MS);
  }

  // Label images in the order in which dcmjs sorts the slices that they belong to: down the slices' normal.
  function inOrderOfSeg(images) {
    const planes = images.map(image => window.cornerstone.metaData.get('imagePlaneModule', image.referencedImageId));
    if (!planes.every(plane => plane && plane.imagePositionPatient && plane.rowCosines)) {
      return images;
    }
    const [a, b] = [planes[0].rowCosines, planes[0].columnCosines];
    const normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const height = planes.map(({ imagePositionPatient: p }) => p[0] * normal[0] + p[1] * normal[1] + p[2] * normal[2]);
    const order = images.map((_, index) => index).sort((i, j) => height[j] - height[i]);
    return order.map(index => images[index]);
  }

  // The numbers that occur in a segmentation's label images.
  function numbersDrawn(segmentation) {
    const { imageIds = [] } = (segmentation.representationData || {}).Labelmap || {};
    const drawn = new Uint8Array(256);
    for (const image of imageIds.map(id => window.cornerstone.cache.getImage(id)).filter(Boolean)) {
      const pixels = image.getPixelData();
      for (let i = 0; i < pixels.length; i += 1) {
        drawn[pixels[i]] = 1;
      }
    }
    return drawn;
  }

  // The labels with voxels in them, or a sentence in the way of submitting.
  function drawnLabels(segmentation) {
    if (!segmentation) {
      return { problem: 'There is nothing to submit: connect, and draw a structure first.' };
    }
    const drawn = numbersDrawn(segmentation);
    const labels = ownSegments(segmentation)
      .filter(segment => drawn[segment.segmentIndex])
      .map(segment => segment.label);
    if (!labels.length) {
      return { problem: 'There is nothing to submit: draw at least one structure on one slice.' };
    }
    const unnamed = labels.find(label => UNNAMED.test(label) && !panel.state.info.labels.includes(label));
    if (unnamed !== undefined) {
      return { problem: `Name "${unnamed}" first: its row's menu in the list of segments has Rename.` };
    }
    return { labels };
  }

  function activeSegmentation() {
    const { segmentationService, viewportGridService } = services();
    const active = segmentationService.getActiveSegmentation(viewportGridService.getActiveViewportId());
    return active || segmentationService.getSegmentation(SEGMENTATION);
  }

  async function store(segmentationId) {
    const { dataset } = panel.props.commandsManager.runCommand('generateSegmentation', {
      segmentationId,
      options: { SeriesDescription: 'Submitted to MONAI Label' },
    });
    for (const segment of [dataset.SegmentSequence].flat()) {
      if (segment.SegmentAlgorithmType === 'AUTOMATIC') {
        segment.SegmentAlgorithmType = 'SEMIAUTOMATIC'; // a person has looked at it
      }
    }
    await panel.props.extensionManager.getActiveDataSource()[0].store.dicom(dataset);
  }

  // What the server says of a label that is in the PACS by now, whatever it says.
  async function counted() {
    try {
      await ask('datastore/refresh', { method: 'POST' });
      const { datastore } = await refresh();
      return `${datastore.completed} of ${datastore.total} studies are labelled`;
    } catch (error) {
      return `it counts once the server has seen it (${error.message})`;
    }
  }

  async function submit(event) {
    const button = event.currentTarget;
    const segmentation = activeSegmentation();
    const { labels, problem } = drawnLabels(segmentation);
    if (problem) {
      notify(problem, 'warning', 8000);
      return;
    }
    const own = segmentation.segmentationId === SEGMENTATION;
    button.disabled = true;
    notify('Submitting the label...');
    try {
      await store(segmentation.segmentationId);
      const what = own ? labels.join(', ') : `${labels.join(', ')} of "${segmentation.label}"`;
      notify(`Submitted ${what}; ${await counted()}.`, 'success', 8000);
    } catch (error) {
      notify(`The label was not submitted. ${error.message}`, 'error', 15000);
    } finally {
      button.disabled = false;
    }
  }

  // Style of a bar that is filled to a share such as "33%".
  const bar = (share, color) => ({
    background: `linear-gradient(to right, ${color} ${share}, #eee ${share})`,
    color: 'black',
    textAlign: 'center',
  });

  const radius = (id, tools) => ({
    name: 'Radius (mm)',
    id,
    type: 'range',
    min: 0.5,
    max: 99.5,
    step: 0.5,
    value: 10,
    commands: { commandName: 'setBrushSize', commandOptions: { toolNames: tools } },
  });
  const shape = (id, tools) => ({
    name: 'Shape',
    type: 'radio',
    id,
    value: tools[0],
    values: tools.map(value => ({ value, label: value.replace(/Brush|Eraser|Scissors?/, '').replace('Circular', 'Circle') })),
    commands: 'setToolActiveToolbar',
  });
  const tool = (id, icon, label, tools) => ({
    id,
    icon,
    label,
    evaluate: {
      name: 'evaluate.cornerstone.segmentation',
      toolNames: tools,
      disabledText: 'Connect to the server, or add a segmentation, to paint.',
    },
    options: [radius(`${id}-radius`, tools), shape(`${id}-shape`, tools)],
  });
  const scissors = ['CircleScissor', 'SphereScissor', 'RectangleScissor'];
  const paintButtons = [
    {
      id: 'BrushTools',
      uiType: 'ohif.buttonGroup',
      props: {
        groupId: 'BrushTools',
        items: [
          tool('Brush', 'icon-tool-brush', 'Brush', ['CircularBrush', 'SphereBrush']),
          tool('Eraser', 'icon-tool-eraser', 'Eraser', ['CircularEraser', 'SphereEraser']),
        ],
      },
    },
    {
      id: 'Shapes',
      uiType: 'ohif.radioGroup',
      props: {
        label: 'Shapes',
        icon: 'icon-tool-shape',
        evaluate: { name: 'evaluate.cornerstone.segmentation', toolNames: scissors },
        options: [shape('Shapes-shape', scissors)],
      },
    },
  ];

  window.fewshotOhif = {
    bar,
    colour,
    follow,
    hasSample,
    inOrderOfSeg,
    middle,
    opened,
    paintButtons,
    present,
    reason,
    segments,
    submit,
  };
})();
